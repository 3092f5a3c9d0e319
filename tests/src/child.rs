//! Child process that never outlives its test and whose output can be searched.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use procfs::process::{self, Process};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use tokio::time::Instant;

use crate::{HANG_TIMEOUT, files::repository};

/// Log lines in a failure message, and for each program of a failed test.
const MESSAGE_LINES: usize = 40;
const LINES_PER_PROGRAM: usize = 10;

/// Marks of log lines below a warning: JSON, logfmt, plain text, PostgreSQL.
const INFO_MARKS: [&str; 7] = ["\"INFO\"", "\"info\"", "\"DEBUG\"", "level=info", "level=INFO", " INFO ", " LOG:  "];

/// Shell script that starts a watchdog and then becomes the program (`exec`).
///
/// The watchdog reads a pipe from the test process. When the test process ends for any reason, the
/// pipe closes, and the watchdog stops the program and removes its scratch directory.
const WATCHDOG_SCRIPT: &str = r#"
scratch=$1 ending=$2; shift 2
exec 3<&0
{ read -r _ <&3; kill -$ending $$; kill -CONT $$; [ -z "$scratch" ] || rm -rf "$scratch" || { sleep 1; rm -rf "$scratch"; }; } >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"#;

/// Running program. Dropping it stops the program.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    name: String,
    stop_signal: Signal,
    output: Arc<Output>,
}

impl Child {
    /// Starts `command`. `scratch` is removed if the test process dies. `ending` is the signal that
    /// stops the program immediately.
    pub fn spawn(command: &Command, scratch: Option<&Path>, ending: Signal) -> Result<Self> {
        let name = name_of(command);
        let mut watched = Command::new("sh");
        watched.args(["-c", WATCHDOG_SCRIPT, "sh"]).arg(scratch.unwrap_or(Path::new(""))).arg(ending.as_raw().to_string());
        watched.arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => watched.env(variable, value),
                None => watched.env_remove(variable),
            };
        }
        watched.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
        watched.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = watched.spawn().with_context(|| format!("starting {name}"))?;
        let output = Arc::<Output>::default();
        output.collect(process.stdout.take().context("stdout is piped")?);
        output.collect(process.stderr.take().context("stderr is piped")?);
        Ok(Self { process, name, stop_signal: ending, output })
    }

    /// Returns the first `Some` of `find` over the past and future output lines. `None` if the
    /// program ends, or after [`HANG_TIMEOUT`].
    pub fn wait_for_line<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.output.wait_for(find)
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the complete output up to this point.
    pub fn log(&self) -> String {
        self.output.lock().lines.join("\n")
    }

    /// Returns the last lines without information messages, for the message of a failed test, and
    /// the path of a file with the complete output.
    pub fn last_lines(&self) -> String {
        self.summary(MESSAGE_LINES)
    }

    fn summary(&self, lines: usize) -> String {
        let output = self.output.lock();
        let shown: Vec<_> = output.lines.iter().filter(|line| !INFO_MARKS.iter().any(|mark| line.contains(mark))).collect();
        let last = shown[shown.len().saturating_sub(lines)..].iter().fold(String::new(), |text, line| text + line + "\n");
        let file = self.write_log(&output.lines.join("\n"));
        let file = file.map_or_else(|error| format!("not written: {error}"), |file| file.display().to_string());
        format!("{last}--- complete output of {}, {} lines: {file}", self.name, output.lines.len())
    }

    /// Writes the output to `target/test-logs/<test>-<program>-<process ID>.log`.
    fn write_log(&self, log: &str) -> std::io::Result<PathBuf> {
        let directory = repository().join("target/test-logs");
        fs::create_dir_all(&directory)?;
        let test = thread::current().name().unwrap_or("unknown").replace("::", "-");

        let file = directory.canonicalize()?.join(format!("{test}-{}-{}.log", self.name, self.id()));
        fs::write(&file, log)?;
        Ok(file)
    }

    /// Sends a signal to the program only.
    pub fn signal(&self, signal: Signal) {
        // An error means that the program has ended already. Every caller detects that in another
        // way.
        let _ = kill_process(self.pid(), signal);
    }

    /// Suspends the program and its child processes of the same program (PostgreSQL backends):
    /// connections stay open without responses. Returns when every thread is stopped.
    pub fn pause(&self) {
        self.signal_descendants(Signal::STOP);
        let deadline = Instant::now() + HANG_TIMEOUT;
        let mut processes = descendants(self.pid());
        processes.push(self.pid());
        while !processes.iter().all(|pid| is_stopped(*pid)) {
            assert!(Instant::now() < deadline, "{} does not stop within {HANG_TIMEOUT:?}", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resumes the program after [`Self::pause`].
    pub fn resume(&self) {
        self.signal_descendants(Signal::CONT);
    }

    fn signal_descendants(&self, signal: Signal) {
        self.signal(signal);
        for pid in descendants(self.pid()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the program and all its descendants, and waits for the exit.
    pub fn kill(&mut self) {
        let family = descendants(self.pid());
        let _ = kill_process_group(self.pid(), Signal::KILL);
        for pid in family {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.process.wait();
    }

    /// Waits until the program exits by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        // The kernel closes the output during exit. From here the exit status is final, and only
        // the watchdog remains to be stopped.
        anyhow::ensure!(self.output.wait_for_end(), "{} did not end within {HANG_TIMEOUT:?}", self.name);
        let _ = kill_process_group(self.pid(), Signal::KILL);
        Ok(self.process.wait()?)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.stop_signal != Signal::KILL {
            self.signal(self.stop_signal);
            self.resume();
            self.output.wait_for_end();
        }
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.summary(LINES_PER_PROGRAM));
        }
    }
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    open: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects the output of `pipe`, so that the program never blocks on a full pipe.
    fn collect(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        self.lock().open += 1;
        let output = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                output.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
                output.changed.notify_all();
            }
            output.lock().open -= 1;
            output.changed.notify_all();
        });
    }

    fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut seen = 0;
        let mut found = None;
        let waiting = |state: &mut Lines| {
            found = state.lines[seen..].iter().find_map(|line| find(line));
            seen = state.lines.len();
            found.is_none() && state.open > 0
        };
        drop(self.changed.wait_timeout_while(self.lock(), HANG_TIMEOUT, waiting));
        found
    }

    fn wait_for_end(&self) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), HANG_TIMEOUT, |state| state.open > 0);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

/// Returns the file name of the program. `setpriv` and other wrappers get the program as argument
/// with an absolute path.
fn name_of(command: &Command) -> String {
    let program = command.get_program();
    let mut words = [program].into_iter().chain(command.get_args());
    let program = Path::new(words.find(|word| Path::new(word).is_absolute()).unwrap_or(program));
    program.file_name().unwrap_or_default().display().to_string()
}

/// Returns whether every thread of a process is stopped, or has ended.
fn is_stopped(pid: Pid) -> bool {
    let tasks = Process::new(pid.as_raw_nonzero().get()).and_then(|process| process.tasks());
    let states = tasks.into_iter().flatten().flatten().filter_map(|task| task.stat().ok()).map(|stat| stat.state);
    states.into_iter().all(|state| "TtZX".contains(state))
}

/// Returns the descendants of `root` that run the same program.
fn descendants(root: Pid) -> Vec<Pid> {
    let root = root.as_raw_nonzero().get();
    let Ok(program) = Process::new(root).and_then(|process| process.stat()) else { return Vec::new() };
    let all = process::all_processes().into_iter().flatten().flatten();
    let stats = all.filter_map(|process| process.stat().ok());
    stats.filter(|stat| stat.comm == program.comm && stat.ppid == root).filter_map(|stat| Pid::from_raw(stat.pid)).collect()
}
