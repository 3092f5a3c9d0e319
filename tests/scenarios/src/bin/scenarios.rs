//! `scenarios`: runs the resilience scenarios, and writes the tables of docs/scenarios.md.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{self, ExitCode},
};

use anyhow::Context;
use clap::{Arg, ArgAction, Command};
use palisade_scenarios::{
    format::{Scenario, folder, read_all},
    planted::{DEFECTS, FAULTS},
    report::{Outcomes, fault_table, replace_generated, run_all, table, wrong_list},
    run::Outcome,
    stack::{Palisade, Published, Stack, TonicAlone},
};

fn main() -> ExitCode {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let matches = Command::new("scenarios")
        .about("Runs the resilience scenarios.")
        .arg(Arg::new("only").long("only").help("Runs the scenarios whose name contains this text.").default_value(""))
        .arg(flag("all", "Runs all stacks, not only Palisade."))
        .arg(flag("write", "Runs all stacks and planted faults, and writes the tables of docs/scenarios.md."))
        .arg(Arg::new("planted").long("planted").help("Switches on a planted fault (builds with debug assertions)."))
        .arg(flag("planted-faults", "Proves that each planted fault makes a scenario fail."))
        .get_matches();
    if let Some(fault) = matches.get_one::<String>("planted") {
        palisade_middleware::planted::activate(fault);
    }
    let only = matches.get_one::<String>("only").map_or("", String::as_str);
    let result = if matches.get_flag("planted-faults") {
        run_planted_faults()
    } else {
        run(only, matches.get_flag("all"), matches.get_flag("write"))
    };
    let written = result.and_then(|(text, success)| {
        write!(std::io::stdout(), "{text}")?;
        Ok(success)
    });
    match written {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "scenarios: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the scenarios. Returns the report, and whether Palisade passes all of them.
fn run(only: &str, all: bool, write: bool) -> anyhow::Result<(String, bool)> {
    let mut scenarios = read_all(&folder())?;
    scenarios.retain(|scenario| write || scenario.name.contains(only));
    anyhow::ensure!(!scenarios.is_empty(), "no scenario has {only} in its name");
    let stacks: [&dyn Stack; 3] = [&Palisade::default(), &TonicAlone, &Published];
    let stacks = if all || write { &stacks[..] } else { &stacks[..1] };
    let results: Vec<_> = stacks.iter().map(|stack| (stack.name(), run_all(&scenarios, *stack))).collect();
    let mut report = String::new();
    for (stack, outcomes) in &results {
        for (name, outcome) in outcomes {
            if let Outcome::Wrong(reasons) = outcome {
                let _ = writeln!(report, "{stack}: {name}:\n    {}", reasons.join("\n    "));
            }
        }
    }
    let text = table(&scenarios, &results);
    report += &text;
    if write {
        let (faults, found) = run_planted_faults()?;
        anyhow::ensure!(found, "a planted fault was not found:\n{faults}");
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scenarios.md");
        let generated = format!("{text}{}\n{faults}", wrong_list(&results));
        let written = replace_generated(&fs::read_to_string(&page)?, &generated);
        fs::write(&page, written.context("docs/scenarios.md has no place for the tables")?)?;
    }
    let passed = results.first().is_some_and(|(_, outcomes)| all_passed(outcomes));
    Ok((report, passed))
}

fn all_passed(outcomes: &Outcomes) -> bool {
    outcomes.values().all(|outcome| *outcome == Outcome::Passed)
}

/// Runs every planted fault. Returns the table, and whether each was found.
fn run_planted_faults() -> anyhow::Result<(String, bool)> {
    let scenarios = read_all(&folder())?;
    let mut found = Vec::new();
    for (name, defect, _) in DEFECTS {
        found.push((name, wrong_with(&scenarios, Palisade { defect: Some(defect) })));
    }
    for (name, _) in FAULTS {
        // A fault stays switched on for the rest of its process.
        let run = process::Command::new(env::current_exe()?).args(["--planted", name]).output()?;
        let lines = String::from_utf8(run.stdout)?;
        let wrong = lines.lines().filter_map(|line| line.strip_prefix("Palisade: ")?.strip_suffix(':').map(str::to_owned));
        found.push((name, wrong.collect()));
    }
    let all = found.iter().all(|(_, wrong)| !wrong.is_empty());
    Ok((fault_table(&found), all))
}

fn wrong_with(scenarios: &[Scenario], stack: Palisade) -> Vec<String> {
    let outcomes = run_all(scenarios, &stack);
    outcomes.into_iter().filter(|(_, outcome)| matches!(outcome, Outcome::Wrong(_))).map(|(name, _)| name).collect()
}
