//! Annotations tell a restart from a deployment, evaluated by promtool.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{fs, path::Path, process::Command};

use palisade_dashboards::resolved_queries::{Windows, queries};
use serde_json::{Value, json};

/// Samples every 5 s of one process, before and after an event at 60 s.
struct Case {
    name: &'static str,
    /// `build_info` of the version 1 and of the version 2.
    versions: [&'static str; 2],
    start_time: &'static str,
    deploys: u8,
    restarts: u8,
}

const CASES: [Case; 5] = [
    Case { name: "nothing", versions: ["1x30", ""], start_time: "100x30", deploys: 0, restarts: 0 },
    Case { name: "restart", versions: ["1x30", ""], start_time: "100x12 200x18", deploys: 0, restarts: 1 },
    Case { name: "outage", versions: ["1x3 stale _x8 1x18", ""], start_time: "100x3 stale _x8 200x18", deploys: 0, restarts: 1 },
    Case { name: "deploy", versions: ["1x12 stale", "_x13 1x18"], start_time: "100x12 200x18", deploys: 1, restarts: 0 },
    Case { name: "rollback", versions: ["1x3 stale _x8 1x18", "_x3 1x9 stale"], start_time: "100x3 150x9 200x18", deploys: 1, restarts: 0 },
];

/// Unit test of promtool: the number of marks shortly after the event.
fn unit_test(case: &Case) -> Value {
    let process = r#"job="gateway",instance="g:1""#;
    let mut series = vec![json!({ "series": format!("process_start_time_seconds{{{process}}}"), "values": case.start_time })];
    for (version, values) in (1..).zip(case.versions).filter(|(_, values)| !values.is_empty()) {
        series.push(json!({ "series": format!(r#"build_info{{{process},version="{version}",revision="{version}"}}"#), "values": values }));
    }
    let marks = [("Deploys", case.deploys), ("Restarts", case.restarts)].map(|(name, expected)| {
        let annotations = queries(Windows { rate: "20s", range: "5m" });
        let query = &annotations.iter().find(|query| (query.dashboard, query.panel) == ("", name)).unwrap().promql;
        json!({ "expr": format!("count({query}) or vector(0)"), "eval_time": "75s", "exp_samples": [{ "labels": "{}", "value": expected }] })
    });
    json!({ "name": case.name, "interval": "5s", "input_series": series, "promql_expr_test": marks })
}

#[test]
fn annotations_tell_restarts_from_deployments() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("annotations.yml");
    let tests: Vec<_> = CASES.iter().map(unit_test).collect();
    fs::write(&file, json!({ "evaluation_interval": "5s", "tests": tests }).to_string()).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().expect("promtool: run `make tools`");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
