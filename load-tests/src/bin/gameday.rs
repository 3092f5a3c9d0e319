//! Game day runner: `gameday [<day>…] [--without breaker|retry-budget|shedding]`.
//!
//! Runs the named scenarios, or all of them, and prints a report for each.

use std::{env, process::ExitCode};

use palisade_load_tests::{
    gameday::{DAYS, DisabledProtection, run},
    reports,
};

#[expect(clippy::print_stdout, reason = "command line output")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (names, without) = match arguments.iter().position(|argument| argument == "--without") {
        Some(place) => (&arguments[..place], arguments.get(place + 1).map(|word| DisabledProtection::named(word))),
        None => (&arguments[..], None),
    };
    let known = |name: &String| DAYS.iter().any(|day| day.name == name);
    if without == Some(None) || !names.iter().all(known) {
        println!("usage: gameday [<day>…] [--without breaker|retry-budget|shedding]\n");
        for day in &DAYS {
            println!("  {:<20} {}", day.name, day.question);
        }
        return Ok(ExitCode::from(2));
    }
    let mut failed = false;
    for day in DAYS.iter().filter(|day| names.is_empty() || names.iter().any(|name| name == day.name)) {
        let story = run(day, without.flatten()).await;
        let report = story.report(day);
        println!("{report}");
        reports::keep(&format!("gameday-{}", day.name), &report)?;
        failed |= !story.passed();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
