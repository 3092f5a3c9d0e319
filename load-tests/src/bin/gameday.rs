//! Game day runner: `gameday [<scenario>…] [--without breaker|retry-budget|shedding]`.
//!
//! Runs the named scenarios, or all of them, and prints a report for each.

use std::{env, process::ExitCode};

use palisade_load_tests::{
    gameday::{DisabledProtection, SCENARIOS, run},
    reports,
};

#[expect(clippy::print_stdout, reason = "command line output")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (names, disabled) = match arguments.iter().position(|argument| argument == "--without") {
        Some(index) => (&arguments[..index], arguments.get(index + 1).map(|name| DisabledProtection::named(name))),
        None => (&arguments[..], None),
    };
    let is_known = |name: &String| SCENARIOS.iter().any(|scenario| scenario.name == name);
    if disabled == Some(None) || !names.iter().all(is_known) {
        println!("usage: gameday [<scenario>…] [--without breaker|retry-budget|shedding]\n");
        for scenario in &SCENARIOS {
            println!("  {:<20} {}", scenario.name, scenario.question);
        }
        return Ok(ExitCode::from(2));
    }
    let mut failed = false;
    for scenario in SCENARIOS.iter().filter(|scenario| names.is_empty() || names.iter().any(|name| name == scenario.name)) {
        let result = run(scenario, disabled.flatten()).await;
        let report = scenario.report(&result);
        println!("{report}");
        reports::write(&format!("gameday-{}", scenario.name), &report)?;
        failed |= !result.passed();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
