//! Replica test runner: `replicas [<trial>…]` runs the named scenarios, or all of them, with 2
//! gateways, 3 products and 3 orders under load.
//!
//! `PALISADE_RESTARTS` is the number of restarted or killed processes (default 100).

use std::{env, process::ExitCode};

use palisade_load_tests::{replicas::TRIALS, reports};

#[expect(clippy::print_stdout, reason = "command line output")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let names: Vec<String> = env::args().skip(1).collect();
    let restarts = env::var("PALISADE_RESTARTS").map_or(Ok(100), |restarts| restarts.parse())?;
    if !names.iter().all(|name| TRIALS.iter().any(|trial| trial.name == name)) {
        println!("usage: replicas [<trial>…]\n");
        for trial in &TRIALS {
            println!("  {:<20} {}", trial.name, trial.question);
        }
        return Ok(ExitCode::from(2));
    }
    let mut failed = false;
    for trial in TRIALS.iter().filter(|trial| names.is_empty() || names.iter().any(|name| name == trial.name)) {
        let claims = trial.run(restarts).await;
        let report = format!("# {}\n\n{}\n\n{claims}", trial.name, trial.question);
        println!("{report}");
        reports::keep(&format!("replicas-{}", trial.name), &report)?;
        failed |= !claims.all_passed();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
