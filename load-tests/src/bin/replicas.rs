//! Replica test runner: `replicas [<scenario>…]` runs the named scenarios, or all of them, with 2
//! gateways, 3 products and 3 orders under load.
//!
//! `PALISADE_RESTARTS` is the number of restarted or killed processes (default 100).

use std::{env, process::ExitCode};

use palisade_load_tests::{replicas::SCENARIOS, reports};

#[expect(clippy::print_stdout, reason = "command line output")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let names: Vec<String> = env::args().skip(1).collect();
    let restarts = env::var("PALISADE_RESTARTS").map_or(Ok(100), |restarts| restarts.parse())?;
    if !names.iter().all(|name| SCENARIOS.iter().any(|scenario| scenario.name == name)) {
        println!("usage: replicas [<scenario>…]\n");
        for scenario in &SCENARIOS {
            println!("  {:<20} {}", scenario.name, scenario.question);
        }
        return Ok(ExitCode::from(2));
    }
    let mut failed = false;
    for scenario in SCENARIOS.iter().filter(|scenario| names.is_empty() || names.iter().any(|name| name == scenario.name)) {
        if let Some(variable) = scenario.needs.filter(|variable| env::var_os(variable).is_none()) {
            println!("# {}\n\nNot run: {variable} is not set (`make {0}` sets it).\n", scenario.name);
            failed |= !names.is_empty();
            continue;
        }
        let assertions = scenario.run(restarts).await;
        let report = format!("# {}\n\n{}\n\n{assertions}", scenario.name, scenario.question);
        println!("{report}");
        reports::write(&format!("replicas-{}", scenario.name), &report)?;
        failed |= !assertions.all_passed();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
