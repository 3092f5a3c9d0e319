//! Private DNS server (dnsmasq) with replaceable records.

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

/// TTL of all records, seconds.
const TTL_SECONDS: u32 = 1;

/// Running DNS server. Dropping it kills it.
#[derive(Debug)]
pub struct Dns {
    // Drop order: process before files.
    server: Child,
    directory: TempDir,
    port: u16,
}

impl Dns {
    /// Starts a server with these records in dnsmasq syntax: `host-record=name,address`,
    /// `srv-host=_service._proto.domain,host,port,priority`.
    pub fn start(records: &[String]) -> Self {
        let directory = TempDir::with_prefix("palisade-dns-").expect("a temporary directory can be made");
        write(directory.path(), records);
        let (server, port) = (0..5)
            .map(|_| free_port())
            .find_map(|port| Some((run(directory.path(), port)?, port)))
            .expect("dnsmasq binds one of five free ports");
        Self { server, directory, port }
    }

    /// Returns the address, for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Replaces the records. Restarts the server, because dnsmasq reads records only at start.
    pub fn set(&mut self, records: &[String]) {
        write(self.directory.path(), records);
        self.restart();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Restarts the server on the same port, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = run(self.directory.path(), self.port).expect("dnsmasq starts again on its port");
    }
}

fn write(directory: &Path, records: &[String]) {
    let general = format!("no-resolv\nno-hosts\nno-daemon\nlocal-ttl={TTL_SECONDS}\nlog-facility=-\nlocal=/test/\n");
    fs::write(directory.join("dnsmasq.conf"), general + &records.join("\n")).expect("a temporary directory takes files");
}

/// Starts the server. `None` if it exits before it is ready.
fn run(directory: &Path, port: u16) -> Option<Child> {
    let mut command = Command::new(program());
    command.arg(format!("--conf-file={}", directory.join("dnsmasq.conf").display())).arg(format!("--port={port}"));
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=", "--group="]);
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("dnsmasq can be started");
    server.wait_for_line(|line| line.contains("started, version").then_some(()))?;
    Some(server)
}

/// Returns the path of dnsmasq. Debian installs it in a directory that only root has in its `PATH`.
fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join("dnsmasq")).find(|program| program.is_file());
    found.expect("dnsmasq is missing: run `make tools` as root (or `make test`, which does), or install the package `dnsmasq-base`")
}
