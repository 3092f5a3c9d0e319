//! k6 runner: binary, script, settings and outcome.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::remote_write;

/// Scripts in `scenarios/` that can be run on their own. Excludes those of game days and of the
/// performance measurement.
pub const SCENARIOS: [&str; 9] = ["auth", "breakpoint", "contention", "grpc", "load", "smoke", "soak", "spike", "stress"];

/// k6's exit code for a failed threshold.
pub const EXIT_THRESHOLDS_FAILED: i32 = 99;

/// Outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// 0 on success, [`EXIT_THRESHOLDS_FAILED`] for failed thresholds, another code if the run
    /// itself failed.
    pub code: Option<i32>,
    /// Complete output, including the report.
    pub output: String,
}

/// Runs the script `scenario` with these settings in addition to the inherited environment.
pub fn run(scenario: &str, settings: &[(String, String)]) -> Outcome {
    let output = command(scenario, settings).output().expect("k6 can be started");
    let output_text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Outcome { code: output.status.code(), output: output_text }
}

/// Creates the command for the script `scenario`.
pub(crate) fn command(scenario: &str, settings: &[(String, String)]) -> Command {
    let script = folder().join("scenarios").join(format!("{scenario}.ts"));
    assert!(script.exists(), "unknown scenario {scenario}, known are {}", SCENARIOS.join(", "));
    let mut command = Command::new(program());
    command.args(["run", "--quiet", "--no-usage-report"]).envs(settings.iter().cloned());
    if settings.iter().any(|(name, _)| name == remote_write::URL) || env::var_os(remote_write::URL).is_some() {
        remote_write::configure(&mut command, scenario);
    }
    command.arg(script);
    command
}

/// Returns the directory of the scripts.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns k6 from the project's tools, or from the `PATH`.
fn program() -> PathBuf {
    let own = folder().join("../.tools/venv/bin/k6");
    let on_path = || Command::new("k6").arg("version").output().is_ok();
    assert!(own.exists() || on_path(), "k6 is missing: install it into .tools/ with `make tools`");
    if own.exists() { own } else { PathBuf::from("k6") }
}
