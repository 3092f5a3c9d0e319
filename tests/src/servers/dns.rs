//! A private DNS server (dnsmasq) that knows only what it is told, and can be told otherwise.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::free_port;
use crate::child::Child;

/// Seconds for which its answers may be believed.
const TTL_SECONDS: u32 = 1;

/// A running DNS server. Dropping it kills it.
#[derive(Debug)]
pub struct Dns {
    // Dropped in this order: the process before its files.
    server: Child,
    directory: TempDir,
    port: u16,
}

impl Dns {
    /// Starts one that knows these records, in dnsmasq's words: `host-record=name,address`, `srv-host=_service._proto.domain,host,port,priority`.
    pub fn start(records: &[String]) -> Self {
        let directory = TempDir::with_prefix("palisade-dns-").expect("a temporary directory can be made");
        write(directory.path(), records);
        let (server, port) = (0..5)
            .map(|_| free_port())
            .find_map(|port| Some((run(directory.path(), port)?, port)))
            .expect("dnsmasq binds one of five free ports");
        Self { server, directory, port }
    }

    /// Where it listens, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// From now on it knows these instead. It is away for a moment: it reads its records only when it starts.
    pub fn set(&mut self, records: &[String]) {
        write(self.directory.path(), records);
        self.restart();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on its port, killing it first if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = run(self.directory.path(), self.port).expect("dnsmasq starts again on its port");
    }
}

fn write(directory: &Path, records: &[String]) {
    let general = format!("no-resolv\nno-hosts\nno-daemon\nlocal-ttl={TTL_SECONDS}\nlog-facility=-\nlocal=/test/\n");
    fs::write(directory.join("dnsmasq.conf"), general + &records.join("\n")).expect("a temporary directory takes files");
}

/// `None` when the server ended before it was ready.
fn run(directory: &Path, port: u16) -> Option<Child> {
    let mut command = Command::new(program());
    command.arg(format!("--conf-file={}", directory.join("dnsmasq.conf").display())).arg(format!("--port={port}"));
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=", "--group="]);
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("dnsmasq can be started");
    server.line(|line| line.contains("started, version").then_some(()))?;
    Some(server)
}

/// Debian has it where only root looks.
fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join("dnsmasq")).find(|program| program.is_file());
    found.expect("dnsmasq is missing: run `make tools` as root (or `make test`, which does), or install the package `dnsmasq-base`")
}
