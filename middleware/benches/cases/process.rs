//! Server process of the hop benchmark, with its CPU time and instruction count.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Server process, killed on drop.
pub(crate) struct Process {
    child: Child,
    /// Base URL of the process.
    pub(crate) url: String,
}

impl Process {
    pub(crate) fn start(role: &str, environment: &[(&str, &str)]) -> Self {
        let command = Command::new(env::current_exe().expect("path of this binary"));
        Self::spawn(command, role, environment)
    }

    /// Starts the process in callgrind, which counts instructions; `None` if valgrind is not
    /// installed.
    pub(crate) fn counted(role: &str, environment: &[(&str, &str)]) -> Option<Self> {
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().ok()?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe().ok()?).stderr(Stdio::piped());
        Some(Self::spawn(command, role, environment))
    }

    fn spawn(mut command: Command, role: &str, environment: &[(&str, &str)]) -> Self {
        command.args(["--role", role]).envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the process starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("the pipe is open")).read_line(&mut line).expect("the process prints its URL");
        Self { child, url: line.trim().to_owned() }
    }

    /// CPU time of all threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the process is running");
        let nanoseconds = tasks.flatten().map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Stops a process started by [`counted`](Self::counted) and returns its number of
    /// instructions.
    pub(crate) fn instructions(mut self) -> f64 {
        let stderr = self.child.stderr.take().expect("the pipe is open");
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(killed.success(), "the process was running");
        let mut output = String::new();
        BufReader::new(stderr).read_to_string(&mut output).expect("callgrind prints a summary");
        let collected = output.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
        collected.unwrap_or_else(|| panic!("callgrind printed no instruction count:\n{output}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
