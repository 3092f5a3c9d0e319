//! Alert rules: known metrics and labels, existing runbooks and dashboards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use palisade_dashboards::{
    dashboards,
    known_metrics::Names,
    promql_check::{labels, problems, selectors},
    resolved_queries::{Windows, queries},
};
use palisade_tests::rules::{self, Rule};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Exposed metrics plus the series recorded by `rules`. A rule may use the records of earlier
/// rules.
fn names(rules: &[Rule]) -> Names {
    let mut names = Names::exposed();
    for rule in rules {
        if let Some(record) = &rule.record {
            let of_series = labels(&rule.expr, &names).into_iter().chain(rule.labels.keys().cloned());
            // The same name may be recorded for several values of a label.
            let previous = names.get(record).map(|known| known.labels.clone()).unwrap_or_default();
            names.add_recorded(record, of_series.chain(previous).collect::<BTreeSet<_>>());
        }
    }
    names
}

fn find_problems(rules: &[Rule]) -> Vec<String> {
    let names = names(rules);
    rules.iter().flat_map(|rule| problems(&rule.expr, &names).into_iter().map(|problem| format!("{}: {problem}", name(rule)))).collect()
}

fn name(rule: &Rule) -> &str {
    rule.record.as_ref().or(rule.alert.as_ref()).map_or("unnamed rule", String::as_str)
}

fn alerts(rules: &[Rule]) -> impl Iterator<Item = (&str, &Rule)> {
    rules.iter().filter_map(|rule| Some((rule.alert.as_deref()?, rule)))
}

#[test]
fn rules_use_known_names() {
    assert_eq!(find_problems(&rules::all()), Vec::<String>::new());
}

#[test]
fn rules_with_unknown_names_are_reported() {
    let rule = |record: &str, expr: &str| Rule {
        record: Some(record.into()),
        alert: None,
        expr: expr.into(),
        labels: BTreeMap::default(),
        annotations: BTreeMap::default(),
    };
    for (expr, expected) in [
        ("a:c", "b:b: unknown metric `a:c`"),
        ("max by (instance) (a:b)", "b:b: `a:b` has no label `instance`"),
        ("rate(palisade_request_shed_total[5m])", "b:b: unknown metric `palisade_request_shed_total`"),
    ] {
        assert_eq!(find_problems(&[rule("a:b", "sum by (job) (up)"), rule("b:b", expr)]), [expected]);
    }
    assert_eq!(find_problems(&[rule("a:b", "sum by (job) (up)"), rule("b:b", "max by (job) (a:b)")]), Vec::<String>::new());
}

#[test]
fn series_used_by_dashboards_are_recorded() {
    let rules = rules::all();
    let names = names(&rules);
    for query in queries(Windows::default()) {
        for selector in selectors(&query.promql).into_iter().filter(|selector| selector.name.contains(':')) {
            assert!(names.get(&selector.name).is_some(), "{}: {}", query.panel, selector.name);
        }
    }
}

#[test]
fn each_alert_links_to_runbook_and_dashboard() {
    let uids: Vec<_> = dashboards().iter().map(palisade_dashboards::dashboard::Dashboard::uid).collect();
    for (alert, rule) in alerts(&rules::all()) {
        assert!(root().join(format!("docs/runbooks/{alert}.md")).is_file(), "docs/runbooks/{alert}.md is missing");
        let dashboard = rule.annotations.get("dashboard").unwrap_or_else(|| panic!("{alert} has no dashboard annotation"));
        let uid = dashboard.split("/d/").last().and_then(|rest| rest.split(['/', '?']).next()).unwrap();
        assert!(uids.iter().any(|known| known == uid), "{alert} links to the unknown dashboard {dashboard}");
    }
}

#[test]
fn alert_annotations_use_available_labels() {
    let rules = rules::all();
    let names = names(&rules);
    for (alert, rule) in alerts(&rules) {
        let available: BTreeSet<_> = labels(&rule.expr, &names).into_iter().chain(rule.labels.keys().cloned()).collect();
        for text in rule.annotations.values() {
            for label in text.split("$labels.").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()) {
                assert!(available.contains(label), "{alert} uses the label `{label}`, available are {available:?}");
            }
        }
    }
}

#[test]
fn panels_link_to_existing_runbooks() {
    let rules = rules::all();
    let known: BTreeSet<_> = alerts(&rules).map(|(alert, _)| alert).collect();
    for file in palisade_dashboards::files().unwrap() {
        for linked in file.text.split("docs/runbooks/").skip(1).map(|rest| rest.split(".md").next().unwrap()) {
            // The row of a table names its alert.
            let linked = if linked == "${__data.fields.alertname}" { "Watchdog" } else { linked };
            assert!(known.contains(linked), "{} links to a runbook of {linked}, which is not an alert", file.path.display());
        }
    }
}

#[test]
fn runbooks_name_existing_panels() {
    let boards = dashboards();
    let name_of = |word: &str| word.to_lowercase().replace("slos", "slo");
    let mut named = 0;
    for entry in fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        // A sentence like "Resilience, *Retry ratio*: …".
        let text = fs::read_to_string(&path).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        for (before, rest) in text.match_indices(", *").map(|(at, found)| (&text[..at], &text[at + found.len()..])) {
            let word = before.rsplit(' ').next().unwrap_or_default();
            let Some(board) = boards.iter().find(|board| board.name == name_of(word)) else { continue };
            let panel = rest.split('*').next().unwrap();
            assert!(board.has_panel(panel), "{}: {word} has no panel `{panel}`", path.display());
            named += 1;
        }
    }
    assert!(named > 40, "{named} panels");
}
