//! Load test runner: `load <scenario>` runs a k6 script against `BASE_URL`, or against its own
//! services and stores if that is not set.
//!
//! The report is printed and written to `target/load-reports/`, beside k6's web dashboard as one
//! HTML file. k6's metrics are sent to the Prometheus at `K6_PROMETHEUS_RW_SERVER_URL`, or at
//! localhost:9090 if that accepts remote write.

use std::{env, process::ExitCode};

use palisade_load_tests::{Environment, SCENARIOS, remote_write, run_with_reports};

#[expect(clippy::print_stdout, reason = "command line output")]
fn main() -> anyhow::Result<ExitCode> {
    let Some(scenario) = env::args().nth(1).filter(|scenario| SCENARIOS.contains(&scenario.as_str())) else {
        println!("usage: load <scenario>\n\nscenarios: {}", SCENARIOS.join(", "));
        return Ok(ExitCode::from(2));
    };
    let mut settings = Vec::new();
    let runtime = tokio::runtime::Runtime::new()?;
    let environment = env::var_os("BASE_URL").is_none().then(Environment::start);
    if let Some(environment) = &environment {
        runtime.block_on(environment.shop.ready());
        settings.extend(environment.settings());
    }
    if let Some(url) = remote_write::find_url() {
        println!("sending k6 metrics to {url}");
        settings.push((remote_write::URL.to_owned(), url));
    }
    let outcome = run_with_reports(&scenario, &settings)?;
    println!("{}", outcome.output);
    for report in &outcome.reports {
        println!("report: {}", report.display());
    }
    Ok(outcome.code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
