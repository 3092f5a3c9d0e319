//! k6's own metrics, sent to a Prometheus, under the names that the load dashboard asks for.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

/// Where k6 sends them: a Prometheus that was started with `--web.enable-remote-write-receiver`.
pub const URL: &str = "K6_PROMETHEUS_RW_SERVER_URL";

/// Each is a series of its own: `k6_http_req_duration_p95` and so on. Seconds, as Prometheus has it.
const STATISTICS: &str = "p(50),p(90),p(95),p(99),avg,min,max";
/// Where `make up` has one.
const USUAL: &str = "127.0.0.1:9090";
/// It is on this machine, or it is not there.
const PATIENCE: Duration = Duration::from_millis(500);

/// Makes k6 send.
pub(crate) fn to(command: &mut Command, scenario: &str) {
    command.args(["--out", "experimental-prometheus-rw", "--tag", &format!("testid={scenario}")]);
    // Series end with the run, and do not stand for five minutes as they last were.
    for (name, value) in [("K6_PROMETHEUS_RW_TREND_STATS", STATISTICS), ("K6_PROMETHEUS_RW_STALE_MARKERS", "true")] {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

/// The URL to write to: that of the environment, or of a Prometheus at its usual place that takes it.
pub fn found() -> Option<String> {
    env::var(URL).ok().or_else(|| at(USUAL.parse().ok()?))
}

/// The URL of a Prometheus at `address`, if there is one and it takes what is written to it.
pub fn at(address: SocketAddr) -> Option<String> {
    let is_prometheus = ask(address, "GET /-/ready")?.contains("Prometheus");
    // Nothing is no request that it can read (400); without the receiver there is no such path (404).
    let takes = !ask(address, "POST /api/v1/write")?.starts_with("HTTP/1.1 404");
    (is_prometheus && takes).then(|| format!("http://{address}/api/v1/write"))
}

/// The whole answer, as it comes.
fn ask(address: SocketAddr, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
