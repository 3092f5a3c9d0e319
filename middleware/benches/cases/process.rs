//! A program of the hop in a process of its own, and what it has used.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A server process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) url: String,
}

impl Process {
    pub(crate) fn start(role: &str, environment: &[(&str, &str)]) -> Self {
        let command = Command::new(env::current_exe().expect("this program"));
        Self::spawn(command, role, environment)
    }

    /// Below callgrind, which counts instructions; `None` if it is not installed.
    pub(crate) fn counted(role: &str, environment: &[(&str, &str)]) -> Option<Self> {
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().ok()?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe().ok()?).stderr(Stdio::piped());
        Some(Self::spawn(command, role, environment))
    }

    fn spawn(mut command: Command, role: &str, environment: &[(&str, &str)]) -> Self {
        command.args(["--role", role]).envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says where it listens");
        Self { child, url: line.trim().to_owned() }
    }

    /// CPU time so far, over all threads.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanoseconds = tasks.flatten().map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Ends a process that was [`counted`](Self::counted); how many instructions it ran.
    pub(crate) fn instructions(mut self) -> f64 {
        let stderr = self.child.stderr.take().expect("it is piped");
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("it can be told to end");
        assert!(killed.success(), "it was there until now");
        let mut output = String::new();
        BufReader::new(stderr).read_to_string(&mut output).expect("callgrind sums up");
        let collected = output.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
        collected.unwrap_or_else(|| panic!("callgrind counted nothing:\n{output}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
