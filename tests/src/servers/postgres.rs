//! A private Postgres server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::{Durability, free_port};
use crate::child::Child;

/// A running Postgres server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    // Dropped in this order: the process before its data.
    server: Child,
    directory: TempDir,
    port: u16,
    durability: Durability,
}

impl Postgres {
    pub(super) fn start(durability: Durability) -> Self {
        let directory = TempDir::with_prefix("palisade-postgres-").expect("a temporary directory can be made");
        initialise(directory.path());
        let (server, port) = (0..10)
            .map(|_| free_port())
            .find_map(|port| Some((run(directory.path(), port, durability)?, port)))
            .expect("PostgreSQL binds one of ten free ports");
        Self { server, directory, port, durability }
    }

    /// The connection string of a database, which is created if it is not there.
    pub fn url(&self, database: &str) -> String {
        let mut create = Command::new(programs().join("createdb"));
        create.args(["-h", "127.0.0.1", "-U", "app", "-p", &self.port.to_string(), database]);
        let output = create.output().expect("createdb can be started");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || message.contains("already exists"), "createdb {database}: {message}");
        format!("postgres://app@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of its process; another one after a restart.
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// `kill -9` of every process of the server.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on its port and data, killing it first if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        // A backend that has not noticed yet keeps the old shared memory for a moment, and the start is refused.
        self.server = (0..50)
            .find_map(|_| run(self.directory.path(), self.port, self.durability))
            .expect("PostgreSQL starts again on its port and data");
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

fn initialise(directory: &Path) {
    if geteuid().is_root() {
        let output = Command::new("chown").arg("postgres:").arg(directory).output().expect("chown can be started");
        assert!(output.status.success(), "the user postgres is missing: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut command = unprivileged(programs().join("initdb"));
    command.args(["-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]).arg(directory.join("data"));
    let output = command.current_dir(directory).output();
    let output = output.expect("initdb can be started");
    assert!(
        output.status.success(),
        "initdb (can the user postgres enter {}?): {}",
        directory.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `None` when the server ended before it was ready.
fn run(directory: &Path, port: u16, durability: Durability) -> Option<Child> {
    let fsync = if durability == Durability::Durable { "fsync=on" } else { "fsync=off" };
    let mut command = unprivileged(programs().join("postgres"));
    command.args(["-h", "127.0.0.1", "-p"]).arg(port.to_string()).arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
    command.args(["-c", fsync, "-c", "max_connections=300"]).current_dir(directory);
    // SIGQUIT is its "immediate shutdown": no checkpoint, but no shared memory left behind either, as after SIGKILL.
    let server = Child::spawn(&command, Some(directory), Signal::QUIT).expect("postgres can be started");
    server.line(|line| line.contains("ready to accept connections").then_some(()))?;
    Some(server)
}

/// Postgres refuses to run as root.
fn unprivileged(program: PathBuf) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// Where Postgres's programs are: Debian's newest version, or somewhere in the `PATH`.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|version| version.file_name().to_str()?.parse::<u32>().ok()).max();
    let packaged = newest.map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = packaged.into_iter().chain(env::split_paths(&path));
    let found = places.find(|bin| ["initdb", "postgres", "createdb"].iter().all(|program| bin.join(program).exists()));
    found.expect("PostgreSQL is missing: run `make tools` as root (or `make test`, which does), or install the package `postgresql`")
}
