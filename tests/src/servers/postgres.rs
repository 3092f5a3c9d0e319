//! Private PostgreSQL server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::{Durability, free_port};
use crate::child::Child;

/// Running PostgreSQL server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    // Drop order: process before data.
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

    /// Creates a database if it does not exist and returns its connection string.
    pub fn url(&self, database: &str) -> String {
        let mut create = Command::new(programs().join("createdb"));
        create.args(["-h", "127.0.0.1", "-U", "app", "-p", &self.port.to_string(), database]);
        let output = create.output().expect("createdb can be started");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || message.contains("already exists"), "createdb {database}: {message}");
        format!("postgres://app@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the port on 127.0.0.1, unchanged by a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process ID, which changes with a restart.
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// `kill -9` of every process of the server.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Restarts the server with the same port and data, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.server.kill();
        // A backend that still exits holds the old shared memory for a moment, and the start fails.
        self.server = (0..50)
            .find_map(|_| run(self.directory.path(), self.port, self.durability))
            .expect("PostgreSQL starts again on its port and data");
    }

    /// Writes a database to `file`, as `pg_dump` of the documented backup does.
    pub fn dump(&self, database: &str, file: &Path) {
        self.administer("pg_dump", &["--format=custom", "--file", text(file), database]);
    }

    /// Replaces a database by the one that [`Self::dump`] wrote to `file`. Ends its connections.
    pub fn restore(&self, database: &str, file: &Path) {
        self.administer("dropdb", &["--force", database]);
        self.administer("createdb", &[database]);
        self.administer("pg_restore", &["--exit-on-error", "--dbname", database, text(file)]);
    }

    /// Returns the size of a database, bytes.
    pub fn size(&self, database: &str) -> u64 {
        let query = format!("select pg_database_size('{database}')");
        self.administer("psql", &["--no-align", "--tuples-only", "--command", &query, database]).trim().parse().expect("a number")
    }

    /// Runs a client program, which must succeed, and returns its output.
    fn administer(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(programs().join(program));
        command.args(["-h", "127.0.0.1", "-U", "app", "-p", &self.port.to_string()]).args(arguments);
        let output = command.output().expect("the programs of PostgreSQL can be started");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Suspends the processes (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Resumes the processes after [`Self::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
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

/// Starts the server. `None` if it exits before it is ready.
fn run(directory: &Path, port: u16, durability: Durability) -> Option<Child> {
    let fsync = if durability == Durability::Durable { "fsync=on" } else { "fsync=off" };
    let mut command = unprivileged(programs().join("postgres"));
    command.args(["-h", "127.0.0.1", "-p"]).arg(port.to_string()).arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
    command.args(["-c", fsync, "-c", "max_connections=300"]).current_dir(directory);
    // SIGQUIT is the "immediate shutdown": no checkpoint, but unlike SIGKILL it leaves no shared
    // memory behind.
    let server = Child::spawn(&command, Some(directory), Signal::QUIT).expect("postgres can be started");
    server.wait_for_line(|line| line.contains("ready to accept connections").then_some(()))?;
    Some(server)
}

/// Drops root privileges, which PostgreSQL refuses to run with.
fn unprivileged(program: PathBuf) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// Returns the directory of the PostgreSQL programs: Debian's newest version, or one in the `PATH`.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|version| version.file_name().to_str()?.parse::<u32>().ok()).max();
    let packaged = newest.map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = packaged.into_iter().chain(env::split_paths(&path));
    let found = places.find(|bin| ["initdb", "postgres", "createdb"].iter().all(|program| bin.join(program).exists()));
    found.expect("PostgreSQL is missing: run `make tools` as root (or `make test`, which does), or install the package `postgresql`")
}
