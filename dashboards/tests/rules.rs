//! The rules of alerts name only what exists, and each alert leads to a runbook and to a dashboard that are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use palisade_dashboards::{
    promql_check::{labels, problems, selectors},
    dashboards,
    resolved_queries::{Windows, queries},
    known_metrics::Names,
};
use palisade_tests::rules::{self, Rule};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What processes expose, and what `rules` record of it; a rule may use what one before it records.
fn names(rules: &[Rule]) -> Names {
    let mut names = Names::exposed();
    for rule in rules {
        if let Some(record) = &rule.record {
            let of_series = labels(&rule.expr, &names).into_iter().chain(rule.labels.keys().cloned());
            // The same name may be recorded for several values of a label.
            let before = names.get(record).map(|known| known.labels.clone()).unwrap_or_default();
            names.add(record, of_series.chain(before).collect::<BTreeSet<_>>());
        }
    }
    names
}

fn wrong(rules: &[Rule]) -> Vec<String> {
    let names = names(rules);
    rules.iter().flat_map(|rule| problems(&rule.expr, &names).into_iter().map(|problem| format!("{}: {problem}", name(rule)))).collect()
}

fn name(rule: &Rule) -> &str {
    rule.record.as_ref().or(rule.alert.as_ref()).map_or("a rule without a name", String::as_str)
}

fn alerts(rules: &[Rule]) -> impl Iterator<Item = (&str, &Rule)> {
    rules.iter().filter_map(|rule| Some((rule.alert.as_deref()?, rule)))
}

#[test]
fn rules_name_only_what_exists() {
    assert_eq!(wrong(&rules::all()), Vec::<String>::new());
}

#[test]
fn what_rules_name_wrongly_is_found() {
    let rule = |record: &str, expr: &str| Rule {
        record: Some(record.into()),
        alert: None,
        expr: expr.into(),
        labels: BTreeMap::default(),
        annotations: BTreeMap::default(),
    };
    for (ill, found) in [
        ("a:c", "b:b: nobody exposes `a:c`"),
        ("max by (instance) (a:b)", "b:b: `a:b` has no label `instance`"),
        ("rate(palisade_request_shed_total[5m])", "b:b: nobody exposes `palisade_request_shed_total`"),
    ] {
        assert_eq!(wrong(&[rule("a:b", "sum by (job) (up)"), rule("b:b", ill)]), [found]);
    }
    assert_eq!(wrong(&[rule("a:b", "sum by (job) (up)"), rule("b:b", "max by (job) (a:b)")]), Vec::<String>::new());
}

#[test]
fn what_dashboards_take_from_rules_is_recorded() {
    let rules = rules::all();
    let names = names(&rules);
    for query in queries(Windows::default()) {
        for selector in selectors(&query.promql).into_iter().filter(|selector| selector.name.contains(':')) {
            assert!(names.get(&selector.name).is_some(), "{}: {}", query.panel, selector.name);
        }
    }
}

#[test]
fn each_alert_leads_to_a_runbook_and_a_dashboard() {
    let uids: Vec<_> = dashboards().iter().map(palisade_dashboards::dashboard::Dashboard::uid).collect();
    for (alert, rule) in alerts(&rules::all()) {
        assert!(root().join(format!("docs/runbooks/{alert}.md")).is_file(), "docs/runbooks/{alert}.md is missing");
        let dashboard = rule.annotations.get("dashboard").unwrap_or_else(|| panic!("{alert} names no dashboard"));
        let uid = dashboard.split("/d/").last().and_then(|rest| rest.split(['/', '?']).next()).unwrap();
        assert!(uids.iter().any(|known| known == uid), "{alert} leads to {dashboard}");
    }
}

#[test]
fn what_an_alert_says_names_labels_that_it_has() {
    let rules = rules::all();
    let names = names(&rules);
    for (alert, rule) in alerts(&rules) {
        let has: BTreeSet<_> = labels(&rule.expr, &names).into_iter().chain(rule.labels.keys().cloned()).collect();
        for text in rule.annotations.values() {
            for label in text.split("$labels.").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()) {
                assert!(has.contains(label), "{alert} says `{label}` and has {has:?}");
            }
        }
    }
}

#[test]
fn panels_lead_to_runbooks_that_are_there() {
    let rules = rules::all();
    let known: BTreeSet<_> = alerts(&rules).map(|(alert, _)| alert).collect();
    for file in palisade_dashboards::files().unwrap() {
        for linked in file.text.split("docs/runbooks/").skip(1).map(|rest| rest.split(".md").next().unwrap()) {
            assert!(known.contains(linked), "{} leads to a runbook of {linked}, which is no alert", file.path.display());
        }
    }
}
