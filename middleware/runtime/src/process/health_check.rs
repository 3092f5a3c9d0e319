//! Health check of a container: readiness as an exit code.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Queries readiness at the admin port `address`; exit code 0 if ready. For container health
/// checks.
pub(super) fn run(address: SocketAddr) -> ExitCode {
    let probe = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(format!("GET /readyz HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    if probe().unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
