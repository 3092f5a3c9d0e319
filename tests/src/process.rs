//! The programs of this workspace, as processes: started, asked where they listen, and made to fail.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{child::Child, client::Client};

/// The built program of a service (`gateway`, `products`, `orders`), or the all-in-one (`palisade`).
/// `make build` builds them; the tests only run them.
pub fn program(service: &str) -> PathBuf {
    let this = env::current_exe().expect("a program knows where it is");
    let beside = this.parent().expect("it is in a folder");
    // A test is in <target>/<profile>/deps, a program beside the others.
    let directory = if beside.ends_with("deps") { beside.parent().expect("deps is in a folder") } else { beside };
    let program = directory.join(if service == "palisade" { "palisade".to_owned() } else { format!("palisade-{service}") });
    assert!(program.exists(), "{} is missing: run `make build` (or `make test`, which does)", program.display());
    program
}

/// A `PATH` on which the built programs come first, for scripts that call them.
pub fn search_path() -> OsString {
    let programs = program("palisade").parent().expect("a program is in a folder").to_owned();
    let others = env::var_os("PATH").unwrap_or_default();
    env::join_paths([programs].into_iter().chain(env::split_paths(&others))).expect("folders of a PATH can be joined")
}

/// A command that runs a program of this workspace, free of any `PALISADE_…` variable of the caller's.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("PALISADE_")) {
        command.env_remove(variable);
    }
    command
}

/// Runs a program to its end.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    command(name).args(arguments).output().expect("a built program can be started")
}

/// Runs a program that must succeed, and gives what it wrote on stdout.
pub fn output_of(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("programs write UTF-8").trim().to_owned()
}

/// A running program that listens. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    command: Command,
    scratch: PathBuf,
    child: Child,
}

impl Program {
    /// Starts it; `scratch` is removed if the test dies.
    pub fn start(command: Command, scratch: &Path) -> Self {
        let child = spawn(&command, scratch);
        Self { command, scratch: scratch.to_owned(), child }
    }

    /// The base URL of a listener, once it listens: the program says `listening <name> <url>`.
    pub fn url(&self, listener: &str) -> String {
        let url =
            self.child.line(|line| Some(line.strip_prefix("listening ")?.strip_prefix(listener)?.strip_prefix(' ')?.trim().to_owned()));
        url.unwrap_or_else(|| panic!("no listener `{listener}`; the program said:\n{}", self.child.log()))
    }

    /// The base URL of the admin port of `service`.
    pub fn admin_url(&self, service: &str) -> String {
        self.url(&format!("{service}-admin"))
    }

    /// The sum of what `service` tells of a metric, of the series that have all these labels (`name="value"`); calls of the health service are
    /// not counted.
    pub async fn metric_value(&self, service: &str, name: &str, labels: &[&str]) -> f64 {
        let metrics = Client::new(self.admin_url(service), None).get("/metrics").attempt().await.expect("the admin port answers").text();
        let wanted = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && !line.contains("grpc.health")
                && labels.iter().all(|label| line.contains(label))
        };
        metrics.lines().filter(wanted).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Tells `service`, which must let itself be told, to be faulty in `method` (`*` stands for any), or to stop that.
    pub async fn faults(&self, service: &str, method: &str, rate: f64, kind: Option<Value>) {
        let rules: Vec<_> = kind.into_iter().map(|kind| json!({ "name": "test", "method": method, "rate": rate, "kind": kind })).collect();
        let put = Client::new(self.admin_url(service), None).put("/faults", &json!({ "rules": rules }));
        put.attempt().await.expect("the admin port answers").ok(200);
    }

    /// The first value `find` makes of a line of its output, past or to come.
    pub fn line<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.child.line(find)
    }

    /// The number of its process; another one after a restart.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Asks it to stop (SIGTERM) without waiting for it.
    pub fn ask_to_stop(&self) {
        self.child.signal(Signal::TERM);
    }

    /// Waits until it ends by itself; its exit code, `None` if a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("a program that was asked to stop ends").code()
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.child.signal(Signal::STOP);
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.child.signal(Signal::CONT);
    }

    /// Asks it to stop, waits until it has done so as it should, and starts it again as it was started.
    pub fn replace(&mut self) {
        self.ask_to_stop();
        assert_eq!(self.exit_code(), Some(0), "{}", self.log());
        self.restart();
    }

    /// Starts it again as it was started, killing it first if it still runs.
    pub fn restart(&mut self) {
        self.child.kill();
        self.child = spawn(&self.command, &self.scratch);
    }
}

fn spawn(command: &Command, scratch: &Path) -> Child {
    Child::spawn(command, Some(scratch), Signal::KILL).expect("a built program can be started")
}
