//! Private MongoDB-compatible server (`secantusd-rs`, see `tests/install.sh`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Durability, free_port};
use crate::child::Child;

/// Running MongoDB-compatible server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Mongo {
    // Drop order: process before data.
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

    /// Returns the connection string of a database. The server creates it on the first write.
    pub fn url(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}?directConnection=true", self.port)
    }

    /// Returns the port on 127.0.0.1, unchanged by a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process ID, which changes with a restart.
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Restarts the server with the same port and data, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = run(self.directory.path(), self.port, self.durability).expect("secantusd-rs starts again on its port and data");
    }

    /// Copies the storage of the stopped server to `directory`, and starts it again.
    pub fn snapshot(&mut self, directory: &Path) {
        self.server.kill();
        copy_directory(&self.directory.path().join("data"), directory);
        self.restart();
    }

    /// Replaces the storage by the copy that [`Self::snapshot`] made.
    pub fn restore(&mut self, directory: &Path) {
        self.server.kill();
        let data = self.directory.path().join("data");
        fs::remove_dir_all(&data).expect("the storage can be removed");
        copy_directory(directory, &data);
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

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("the directory can be read") {
        let entry = entry.expect("the directory can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// Starts the server. `None` if it exits before it is ready.
fn run(directory: &Path, port: u16, durability: Durability) -> Option<Child> {
    let mut command = Command::new(program());
    command.arg("--port").arg(port.to_string()).arg("--storage-path").arg(directory.join("data"));
    command.args(["--log-level", "WARNING", "--log-file-max", "16MB", "--cache-size", "256M"]);
    if durability == Durability::Durable {
        command.arg("--sync-on-commit");
    }
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("secantusd-rs can be started");
    server.wait_for_line(|line| line.contains("listening on").then_some(()))?;
    Some(server)
}

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/secantusd-rs");
    assert!(program.exists(), "the MongoDB-compatible server is missing: run `make tools` (or `make test`, which does)");
    program
}
