//! Private NATS server with `JetStream`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::free_port;
use crate::child::Child;

/// Running NATS server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Nats {
    // Drop order: process before data.
    server: Child,
    directory: TempDir,
    port: u16,
}

impl Nats {
    pub(super) fn start() -> Self {
        let directory = TempDir::with_prefix("palisade-nats-").expect("a temporary directory can be made");
        let (server, port) = (0..10)
            .map(|_| free_port())
            .find_map(|port| Some((run(directory.path(), port)?, port)))
            .expect("the NATS server binds one of ten free ports");
        Self { server, directory, port }
    }

    /// Returns the server URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the port on 127.0.0.1, unchanged by a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Restarts the server with the same port and data, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server =
            (0..50).find_map(|_| run(self.directory.path(), self.port)).expect("the NATS server starts again on its port and data");
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
fn run(directory: &Path, port: u16) -> Option<Child> {
    let mut command = Command::new(program());
    command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(directory.join("data"));
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("nats-server can be started");
    server.wait_for_line(|line| line.contains("Server is ready").then_some(()))?;
    Some(server)
}

fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian installs it in a directory that only root has in its `PATH`.
    let places = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|place| place.join("nats-server")).find(|program| program.is_file());
    found.expect("NATS is missing: run `make tools` as root (or `make test`, which does), or install the package `nats-server`")
}
