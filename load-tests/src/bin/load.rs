//! `load <scenario>`: runs a k6 script, against `BASE_URL` if that is set, else against services and stores of its own.
//!
//! The report is printed, and written to `target/load-reports/`. `K6_PROMETHEUS_RW_SERVER_URL` sends k6's metrics to a Prometheus.

use std::{env, fs, path::Path, process::ExitCode};

use palisade_load_tests::{SCENARIOS, Stage, run};

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> anyhow::Result<ExitCode> {
    let Some(scenario) = env::args().nth(1).filter(|scenario| SCENARIOS.contains(&scenario.as_str())) else {
        println!("usage: load <scenario>; there are {}", SCENARIOS.join(", "));
        return Ok(ExitCode::from(2));
    };
    let reports = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/load-reports");
    fs::create_dir_all(&reports)?;
    let mut settings = vec![("REPORTS".to_owned(), reports.display().to_string())];
    let runtime = tokio::runtime::Runtime::new()?;
    let stage = env::var_os("BASE_URL").is_none().then(Stage::start);
    if let Some(stage) = &stage {
        runtime.block_on(stage.shop.ready());
        settings.extend(stage.settings());
    }
    let outcome = run(&scenario, &settings);
    println!("{}\nreport: target/load-reports/{scenario}.md", outcome.output);
    Ok(outcome.code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
