//! Palisade passes all scenarios, the documentation has the current result, and planted faults are
//! found.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

use std::process::Command;

use palisade_scenarios::{
    format::{Scenario, folder, read_all},
    planted::{DEFECTS, FAULTS},
    report::{rows_of_first_stack, run_all, table},
    run::{Outcome, run},
    stack::{Palisade, Stack},
};

fn scenarios() -> Vec<Scenario> {
    read_all(&folder()).unwrap()
}

#[test]
fn palisade_passes_every_scenario() {
    let scenarios = scenarios();
    assert!(scenarios.len() >= 100, "{} scenarios", scenarios.len());
    let outcomes = run_all(&scenarios, &Palisade::default());
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| **outcome != Outcome::Passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let current = table(&scenarios, &[(Palisade::default().name(), outcomes)]);
    let current: Vec<_> = current.lines().map(|row| row.trim_end_matches('|')).collect();
    let page = std::fs::read_to_string(folder().join("../../../docs/scenarios.md")).unwrap();
    assert_eq!(rows_of_first_stack(&page).unwrap(), current, "the table is outdated: run `make scenarios`");
}

#[test]
fn planted_defects_of_settings_are_found() {
    let scenarios = scenarios();
    for (fault, defect, found_by) in DEFECTS {
        let scenario = scenarios.iter().find(|scenario| scenario.name == found_by).unwrap();
        let outcome = run(scenario, &Palisade { defect: Some(defect) });
        assert!(matches!(outcome, Outcome::Wrong(_)), "{found_by} does not find the planted fault {fault:?}");
    }
}

#[test]
fn planted_faults_of_code_are_found() {
    let scenarios = scenarios();
    for (fault, found_by) in FAULTS {
        assert!(scenarios.iter().any(|scenario| scenario.name == found_by), "no scenario {found_by}");
        let arguments = ["--only", found_by, "--planted", fault];
        let run = Command::new(env!("CARGO_BIN_EXE_scenarios")).args(arguments).output().expect("the program starts");
        let report = String::from_utf8_lossy(&run.stdout);
        assert!(report.contains(&format!("Palisade: {found_by}:\n")), "{found_by} does not find the planted fault {fault:?}:\n{report}");
        assert_eq!(run.status.code(), Some(1));
    }
}
