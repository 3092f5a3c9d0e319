//! A program that never outlives the test that started it, and whose output is at hand.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child as Process, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

/// How long a program may take to say something that is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Becomes the program itself (`exec`), after leaving a watchdog behind that reads our end of a pipe: when this process ends, however it ends,
/// the pipe closes, the program is ended and its scratch directory removed.
const WATCHED: &str = r#"
scratch=$1 ending=$2; shift 2
exec 3<&0
{ read -r _ <&3; kill -$ending $$; kill -CONT $$; [ -z "$scratch" ] || rm -rf "$scratch" || { sleep 1; rm -rf "$scratch"; }; } >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"#;

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    name: String,
    ending: Signal,
    output: Arc<Output>,
}

impl Child {
    /// Starts `command`. `scratch` is removed if this process dies; `ending` is the signal that ends the program at once.
    pub fn spawn(command: &Command, scratch: Option<&Path>, ending: Signal) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut watched = Command::new("sh");
        watched.args(["-c", WATCHED, "sh"]).arg(scratch.unwrap_or(Path::new(""))).arg(ending.as_raw().to_string());
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
        output.follow(process.stdout.take().context("stdout is piped")?);
        output.follow(process.stderr.take().context("stderr is piped")?);
        Ok(Self { process, name, ending, output })
    }

    /// The first value `find` makes of a line of output, past or to come. `None` when the program ended, or said nothing of it for a minute.
    pub fn line<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.output.wait_for(find)
    }

    /// The number of the program's process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.output.lock().lines.join("\n")
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        // An error means that it has already ended, which every caller finds out by other means.
        let _ = kill_process(self.pid(), signal);
    }

    /// Sends a signal to the program and to the processes of the same program that it started (Postgres's backends).
    pub fn signal_family(&self, signal: Signal) {
        self.signal(signal);
        for pid in family(self.pid()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it at once, with all it started, and waits until it is gone.
    pub fn kill(&mut self) {
        let family = family(self.pid());
        let _ = kill_process_group(self.pid(), Signal::KILL);
        for pid in family {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.process.wait();
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        // The kernel closes its output while it exits: from here on the exit status stands, and only the watchdog is left to end.
        anyhow::ensure!(self.output.wait_for_end(), "{} did not end within {PATIENCE:?}", self.name);
        let _ = kill_process_group(self.pid(), Signal::KILL);
        Ok(self.process.wait()?)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ending != Signal::KILL {
            self.signal(self.ending);
            self.signal_family(Signal::CONT);
            self.output.wait_for_end();
        }
        self.kill();
        if thread::panicking() {
            let output = self.output.lock();
            let last = output.lines.len().saturating_sub(60);
            eprintln!("--- the last lines of {}:\n{}\n---", self.name, output.lines[last..].join("\n"));
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

    /// Collects what comes out of `pipe`, so that the program never blocks on a full one.
    fn follow(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
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
        drop(self.changed.wait_timeout_while(self.lock(), PATIENCE, waiting));
        found
    }

    fn wait_for_end(&self) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| state.open > 0);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

/// Descendants of `root` that run the same program as it does.
fn family(root: Pid) -> Vec<Pid> {
    let Some((program, _)) = stat(&root.to_string()) else { return Vec::new() };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let name = entry.file_name();
        let (its_program, parent) = stat(name.to_str()?)?;
        (its_program == program && parent == root.as_raw_nonzero().get())
            .then(|| name.to_str()?.parse().ok().and_then(Pid::from_raw))
            .flatten()
    })
    .collect()
}

/// A process's program name and parent: fields 2 and 4 of `/proc/<pid>/stat` (proc(5)).
fn stat(pid: &str) -> Option<(String, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (program, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    Some((program.to_owned(), rest.split_whitespace().nth(1)?.parse().ok()?))
}
