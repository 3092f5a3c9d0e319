//! The table of stacks in docs/scenarios.md.

use std::{collections::BTreeMap, fmt::Write, thread};

use crate::{
    format::{GROUPS, Scenario},
    run::{Outcome, run},
    stack::Stack,
};

/// Marks the generated part of a page.
const BEGIN: &str = "<!-- begin: make scenarios -->\n";
const END: &str = "<!-- end: make scenarios -->\n";
/// Scenarios in a row of the table of planted faults.
const SHOWN: usize = 3;
/// Scenarios at the same time, of a stack that runs in real time.
const IN_REAL_TIME: usize = 25;

/// Outcome of each scenario, by its name.
pub type Outcomes = BTreeMap<String, Outcome>;

/// Runs all scenarios with a stack.
pub fn run_all(scenarios: &[Scenario], stack: &dyn Stack) -> Outcomes {
    let run_some = |some: &[Scenario]| some.iter().map(|scenario| (scenario.name.clone(), run(scenario, stack))).collect::<Vec<_>>();
    if !stack.has_own_clock() {
        return run_some(scenarios).into_iter().collect();
    }
    let size = scenarios.len().div_ceil(IN_REAL_TIME).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = scenarios.chunks(size).map(|some| scope.spawn(move || run_some(some))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

/// Renders the table: passed, wrong and not supported scenarios of each group and stack.
pub fn table(scenarios: &[Scenario], results: &[(&str, Outcomes)]) -> String {
    let mut text = String::from("| group | scenarios |");
    for (stack, _) in results {
        let _ = write!(text, " {stack} |");
    }
    let _ = write!(text, "\n|---|---:|{}\n", "---|".repeat(results.len()));
    for group in GROUPS.into_iter().map(Some).chain([None]) {
        let names: Vec<_> = scenarios.iter().filter(|scenario| group.is_none_or(|group| group == scenario.group())).collect();
        let _ = write!(text, "| {} | {} |", group.unwrap_or("**all**"), names.len());
        for (_, outcomes) in results {
            let count = |is: fn(&Outcome) -> bool| names.iter().filter(|scenario| outcomes.get(&scenario.name).is_some_and(is)).count();
            let (passed, wrong) = (count(|outcome| *outcome == Outcome::Passed), count(|outcome| matches!(outcome, Outcome::Wrong(_))));
            let missing = count(|outcome| matches!(outcome, Outcome::NotSupported(_)));
            let _ = write!(text, " {passed} passed, {wrong} wrong, {missing} not supported |");
        }
        text.push('\n');
    }
    text
}

/// Renders the list of wrong scenarios of each stack.
pub fn wrong_list(results: &[(&str, Outcomes)]) -> String {
    let mut text = String::new();
    for (stack, outcomes) in results {
        let wrong: Vec<_> = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Wrong(_))).collect();
        if wrong.is_empty() {
            continue;
        }
        let _ = write!(text, "\nWrong with {stack}:\n\n");
        for (name, outcome) in wrong {
            let Outcome::Wrong(reasons) = outcome else { continue };
            let reason = reasons.first().map_or("", String::as_str);
            let _ = writeln!(text, "- `{name}`: {reason}");
        }
    }
    text
}

/// Renders the table of planted faults: the scenarios that find each.
pub fn fault_table(found: &[(&str, Vec<String>)]) -> String {
    let mut text = String::from("| planted fault | found by |\n|---|---|\n");
    for (fault, scenarios) in found {
        let shown: Vec<_> = scenarios.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        let more = scenarios.len().saturating_sub(SHOWN);
        let rest = if more > 0 { format!(", {more} more") } else { String::new() };
        let shown = if shown.is_empty() { "**not found**".to_owned() } else { shown.join(", ") };
        let _ = writeln!(text, "| {fault} | {shown}{rest} |");
    }
    text
}

/// Replaces the generated part of `page`.
pub fn replace_generated(page: &str, generated: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{generated}\n{END}{after}"))
}

/// Returns the rows of the table in `page` without the columns of other stacks.
pub fn rows_of_first_stack(page: &str) -> Option<Vec<String>> {
    let generated = page.split_once(BEGIN)?.1.split_once(END)?.0;
    let table = generated.lines().skip_while(|line| !line.starts_with("| group |")).take_while(|line| line.starts_with('|'));
    Some(table.map(|row| row.split('|').take(4).collect::<Vec<_>>().join("|")).collect())
}
