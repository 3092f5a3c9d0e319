//! Workspace programs as child processes: start, find listeners, inject faults, stop.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{child::Child, client::Client};

/// Returns the path of the built program of a service (`gateway`, `products`, `orders`) or of the
/// all-in-one (`palisade`).
///
/// `make build` builds the programs, the tests only run them.
pub fn program(service: &str) -> PathBuf {
    let executable = env::current_exe().expect("path of the current executable is known");
    let parent = executable.parent().expect("executable has a parent directory");
    // Tests are in <target>/<profile>/deps, programs one directory above.
    let directory = if parent.ends_with("deps") { parent.parent().expect("deps has a parent directory") } else { parent };
    let program = directory.join(if service == "palisade" { "palisade".to_owned() } else { format!("palisade-{service}") });
    assert!(program.exists(), "{} is missing: run `make build` (or `make test`, which does)", program.display());
    program
}

/// Returns a `PATH` that starts with the built programs, for scripts that call them.
pub fn search_path() -> OsString {
    let programs = program("palisade").parent().expect("program has a parent directory").to_owned();
    let others = env::var_os("PATH").unwrap_or_default();
    env::join_paths([programs].into_iter().chain(env::split_paths(&others))).expect("PATH entries can be joined")
}

/// Creates a command for a workspace program, without inherited `PALISADE_…` variables.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("PALISADE_")) {
        command.env_remove(variable);
    }
    command
}

/// Returns the same command for another build of its program, in `directory`.
pub fn of_build(directory: &Path, command: &Command) -> Command {
    let name = Path::new(command.get_program()).file_name().expect("a program has a file name");
    let mut other = Command::new(directory.join(name));
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

/// Runs a program to completion.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    command(name).args(arguments).output().expect("a built program can be started")
}

/// As [`run`], with this environment.
pub fn run_with(name: &str, arguments: &[&str], environment: impl IntoIterator<Item = (String, String)>) -> Output {
    command(name).args(arguments).envs(environment).output().expect("a built program can be started")
}

/// Runs a program that must succeed and returns its standard output.
pub fn output_of(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("programs write UTF-8").trim().to_owned()
}

/// Running program with listeners. Dropping it kills the program.
#[derive(Debug)]
pub struct Program {
    command: Command,
    scratch: PathBuf,
    child: Child,
}

impl Program {
    /// Starts the program. `scratch` is removed if the test dies.
    pub fn start(command: Command, scratch: &Path) -> Self {
        let child = spawn(&command, scratch);
        Self { command, scratch: scratch.to_owned(), child }
    }

    /// Waits for a listener and returns its base URL. The program prints `listening <name> <url>`.
    pub fn url(&self, listener: &str) -> String {
        let url = self
            .child
            .wait_for_line(|line| Some(line.strip_prefix("listening ")?.strip_prefix(listener)?.strip_prefix(' ')?.trim().to_owned()));
        url.unwrap_or_else(|| panic!("no listener `{listener}`, program output:\n{}", self.child.last_lines()))
    }

    /// Returns the base URL of the admin port of `service`.
    pub fn admin_url(&self, service: &str) -> String {
        self.url(&format!("{service}-admin"))
    }

    /// Returns the sum of a metric of `service` over the series with all these labels
    /// (`name="value"`), without calls of the gRPC health service.
    pub async fn metric_value(&self, service: &str, name: &str, labels: &[&str]) -> f64 {
        let metrics = Client::new(self.admin_url(service), None).get("/metrics").attempt().await.expect("the admin port answers").text();
        let is_wanted = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && !line.contains("grpc.health")
                && labels.iter().all(|label| line.contains(label))
        };
        metrics.lines().filter(is_wanted).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Sets the fault injection rules of `service` for `method` (`*` is a wildcard), or removes
    /// them. Requires enabled fault injection.
    pub async fn set_faults(&self, service: &str, method: &str, rate: f64, kind: Option<Value>) {
        let rules: Vec<_> = kind.into_iter().map(|kind| json!({ "name": "test", "method": method, "rate": rate, "kind": kind })).collect();
        let put = Client::new(self.admin_url(service), None).put("/faults", &json!({ "rules": rules }));
        put.attempt().await.expect("the admin port answers").ok(200);
    }

    /// Returns the first `Some` of `find` over the past and future output lines.
    pub fn wait_for_line<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.child.wait_for_line(find)
    }

    /// Returns the process ID, which changes with a restart.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the complete output up to this point.
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// Returns the last lines for the message of a failed test, see [`Child::last_lines`].
    pub fn last_lines(&self) -> String {
        self.child.last_lines()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        self.child.signal(Signal::TERM);
    }

    /// Waits for the exit and returns the exit code, `None` after a signal.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("program exits after SIGTERM").code()
    }

    /// Suspends the process (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) {
        self.child.pause();
    }

    /// Resumes the process after [`Self::pause`].
    pub fn resume(&self) {
        self.child.resume();
    }

    /// Stops the program gracefully, asserts a clean exit, and starts it with the same command.
    pub fn restart_gracefully(&mut self) {
        self.terminate();
        assert_eq!(self.exit_code(), Some(0), "{}", self.last_lines());
        self.restart();
    }

    /// As [`Self::restart_gracefully`] with the build under test, whatever it ran before.
    pub fn upgrade(&mut self) {
        let current = program("palisade").parent().expect("program has a parent directory").to_owned();
        self.command = of_build(&current, &self.command);
        self.restart_gracefully();
    }

    /// Starts the program with the same command, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.child.kill();
        self.child = spawn(&self.command, &self.scratch);
    }
}

fn spawn(command: &Command, scratch: &Path) -> Child {
    Child::spawn(command, Some(scratch), Signal::KILL).expect("a built program can be started")
}
