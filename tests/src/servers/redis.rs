//! Private Redis server.

use std::{env, path::PathBuf, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::free_port;
use crate::child::Child;

/// Running Redis without persistence. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    // Drop order: process before directory.
    server: Child,
    directory: TempDir,
    port: u16,
}

impl Redis {
    /// Starts a server that requires [`Self::PASSWORD`].
    pub fn start() -> Self {
        let directory = TempDir::with_prefix("palisade-redis-").expect("a temporary directory can be made");
        let (server, port) =
            (0..10).map(|_| free_port()).find_map(|port| Some((run(&directory, port)?, port))).expect("Redis binds one of ten free ports");
        Self { server, directory, port }
    }

    /// Password.
    pub const PASSWORD: &str = "sesame";

    /// Returns the URL with the password.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}", Self::PASSWORD, self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Restarts the server empty on the same port, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = run(&self.directory, self.port).expect("Redis starts again on its port");
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
fn run(directory: &TempDir, port: u16) -> Option<Child> {
    let mut command = Command::new(program());
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--requirepass", Redis::PASSWORD]);
    command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory.path());
    let server = Child::spawn(&command, Some(directory.path()), Signal::KILL).expect("redis-server can be started");
    server.wait_for_line(|line| line.to_lowercase().contains("ready to accept connections").then_some(()))?;
    Some(server)
}

fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|place| place.join("redis-server")).find(|program| program.is_file());
    found.expect("Redis is missing: run `make tools` as root (or `make test`, which does), or install the package `redis-server`")
}
