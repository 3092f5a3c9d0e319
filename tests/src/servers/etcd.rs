//! Private single-member etcd.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::free_port;
use crate::child::Child;

/// Running etcd. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Etcd {
    // Drop order: process before data.
    server: Child,
    directory: TempDir,
    port: u16,
    peer_port: u16,
}

impl Etcd {
    /// Starts a server.
    pub fn start() -> Self {
        let directory = TempDir::with_prefix("palisade-etcd-").expect("a temporary directory can be made");
        let (server, port, peer_port) = (0..5)
            .map(|_| (free_port(), free_port()))
            .filter(|(port, peer_port)| port != peer_port)
            .find_map(|(port, peer_port)| Some((run(directory.path(), port, peer_port)?, port, peer_port)))
            .expect("etcd binds one of five pairs of free ports");
        Self { server, directory, port, peer_port }
    }

    /// Returns the registration and discovery URL: `etcd://host:port/path`.
    pub fn url(&self, path: &str) -> String {
        format!("etcd://127.0.0.1:{}/{path}", self.port)
    }

    /// Returns the base URL of the JSON API.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Restarts the server with the same port and data, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = run(self.directory.path(), self.port, self.peer_port).expect("etcd starts again on its port and data");
    }

    /// Restarts the server on the same port without its data.
    pub fn restart_empty(&mut self) {
        self.server.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("data directory exists");
        self.restart();
    }

    /// Suspends the process (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Resumes the process after [`Self::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

/// Starts the server. `None` if it exits before it is ready.
fn run(directory: &Path, port: u16, peer_port: u16) -> Option<Child> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(program());
    command.args(["--name", "test", "--data-dir"]).arg(directory.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("test={peer}")]);
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("etcd can be started");
    server.wait_for_line(|line| {
        (line.contains("serving insecure client requests") || line.contains("serving client traffic insecurely")).then_some(())
    })?;
    Some(server)
}

fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|place| place.join("etcd")).find(|program| program.is_file());
    found.expect("etcd is missing: run `make tools` as root (or `make test`, which does), or install the package `etcd-server`")
}
