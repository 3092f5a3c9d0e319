//! k6 runner: binary, script, settings, dashboard and outcome.

mod baseline;
mod notable;
mod services;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{remote_write, reports};

/// Scripts in `scenarios/` that can be run on their own. Excludes those of game days and of the
/// performance measurement.
pub const SCENARIOS: [&str; 11] =
    ["auth", "breakpoint", "contention", "flash-sale", "grpc", "load", "shop-day", "smoke", "soak", "spike", "stress"];

/// k6's exit code for a failed threshold.
pub const EXIT_THRESHOLDS_FAILED: i32 = 99;

/// Settings of k6's web dashboard, unless the environment sets them. Port -1 opens no port, so only
/// the HTML export remains. A run shorter than two periods has no export.
const DASHBOARD: [(&str, &str); 3] = [("K6_WEB_DASHBOARD", "true"), ("K6_WEB_DASHBOARD_PORT", "-1"), ("K6_WEB_DASHBOARD_PERIOD", "1s")];

/// Outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// 0 on success, [`EXIT_THRESHOLDS_FAILED`] for failed thresholds, another code if the run
    /// itself failed.
    pub code: Option<i32>,
    /// Complete output, including the report.
    pub output: String,
    /// Report files: k6's dashboard, Markdown and JSON.
    pub reports: Vec<PathBuf>,
}

/// Runs the script `scenario` with these settings in addition to the inherited environment.
pub fn run(scenario: &str, settings: &[(String, String)]) -> Outcome {
    execute(command(scenario, settings))
}

/// Markdown summary of a step in GitHub Actions.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// Same as [`run`], with reports in [`reports::folder`]: `<scenario>.html` is k6's web dashboard,
/// `.md` the summary and `.json` its data. The summary also goes to the step of a CI job.
pub fn run_with_reports(scenario: &str, settings: &[(String, String)]) -> io::Result<Outcome> {
    let folder = reports::folder()?;
    let files = ["html", "md", "json"].map(|extension| folder.join(scenario).with_extension(extension));
    // A report of an earlier run must not pass for one of this run.
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file)?;
    }
    let mut command = command(scenario, settings);
    command.env("REPORTS", &folder).env("K6_WEB_DASHBOARD_EXPORT", &files[0]);
    command.envs(DASHBOARD.into_iter().filter(|(name, _)| env::var_os(name).is_none()));
    let before = services::Scrape::read(settings);
    let outcome = execute(command);
    let [_, markdown, json] = &files;
    if markdown.exists() && json.exists() {
        let notable = notable::markdown(&notable::read(&outcome.output));
        let services = services::Scrape::read(settings).markdown_since(&before);
        let page = fs::read_to_string(markdown)? + &baseline::markdown(scenario, json)? + &services + &notable;
        fs::write(markdown, &page)?;
        if let Some(summary) = env::var_os(STEP_SUMMARY) {
            fs::OpenOptions::new().append(true).create(true).open(summary)?.write_all(page.as_bytes())?;
        }
    }
    let output = notable::remove(&outcome.output);
    Ok(Outcome { reports: files.into_iter().filter(|file| file.exists()).collect(), output, ..outcome })
}

impl Outcome {
    /// Returns the last lines of the output, for the message of a failed test.
    pub fn last_lines(&self) -> String {
        let lines: Vec<_> = self.output.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn execute(mut command: Command) -> Outcome {
    let output = command.output().expect("k6 can be started");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Outcome { code: output.status.code(), output: text, reports: Vec::new() }
}

/// Creates the command for the script `scenario`.
pub(crate) fn command(scenario: &str, settings: &[(String, String)]) -> Command {
    let script = folder().join("scenarios").join(format!("{scenario}.ts"));
    assert!(script.exists(), "unknown scenario {scenario}, known are {}", SCENARIOS.join(", "));
    let mut command = Command::new(program());
    // An empty address disables k6's REST API, whose default port may be taken.
    command.args(["run", "--quiet", "--no-usage-report", "--address="]).envs(settings.iter().cloned());
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
