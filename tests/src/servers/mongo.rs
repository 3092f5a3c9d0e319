//! A private MongoDB-compatible server (`secantusd-rs`, see `tests/install.sh`).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Durability, free_port};
use crate::child::Child;

/// A running MongoDB-compatible server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Mongo {
    // Dropped in this order: the process before its data.
    server: Child,
    directory: TempDir,
    port: u16,
    durability: Durability,
}

impl Mongo {
    pub(super) fn start(durability: Durability) -> Self {
        let directory = TempDir::with_prefix("palisade-mongo-").expect("a temporary directory can be made");
        let (server, port) = (0..10)
            .map(|_| free_port())
            .find_map(|port| Some((run(directory.path(), port, durability)?, port)))
            .expect("secantusd-rs binds one of ten free ports");
        Self { server, directory, port, durability }
    }

    /// The connection string of a database, which the server makes on its first write.
    pub fn url(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}?directConnection=true", self.port)
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of its process; another one after a restart.
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on its port and data, killing it first if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = run(self.directory.path(), self.port, self.durability).expect("secantusd-rs starts again on its port and data");
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.server.signal_family(Signal::STOP);
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.server.signal_family(Signal::CONT);
    }
}

/// `None` when the server ended before it was ready.
fn run(directory: &Path, port: u16, durability: Durability) -> Option<Child> {
    let mut command = Command::new(program());
    command.arg("--port").arg(port.to_string()).arg("--storage-path").arg(directory.join("data"));
    command.args(["--log-level", "WARNING", "--log-file-max", "16MB", "--cache-size", "256M"]);
    if durability == Durability::Durable {
        command.arg("--sync-on-commit");
    }
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("secantusd-rs can be started");
    server.line(|line| line.contains("listening on").then_some(()))?;
    Some(server)
}

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/secantusd-rs");
    assert!(program.exists(), "the MongoDB stand-in is missing: run `make tools` (or `make test`, which does)");
    program
}
