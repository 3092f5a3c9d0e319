//! Prometheus rules and Alertmanager routes: accepted by promtool and amtool, and every alert is
//! tested, complete and documented.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use palisade_tests::rules::{self, Rule};
use serde::{Deserialize, de::DeserializeOwned};

/// Test file of `promtool test rules`.
#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    alert_rule_test: Vec<AlertExpectation>,
}

/// Expected alerts of one name at a time in the test case.
#[derive(Deserialize)]
struct AlertExpectation {
    alertname: String,
    eval_time: String,
    exp_alerts: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Containers {
    services: BTreeMap<String, Container>,
}

#[derive(Deserialize)]
struct Container {
    mem_limit: String,
}

/// Always firing, so that a receiver outside notices when alerting stops.
const WATCHDOG: &str = "Watchdog";

const DASHBOARDS: [&str; 13] =
    ["overview", "slo", "gateway", "grpc", "resilience", "limits", "data", "orders", "stock", "security", "runtime", "telemetry", "load"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml<T: DeserializeOwned>(path: &Path) -> T {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the files in `folder` with this extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|of| of == extension)).collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {folder}");
    files
}

/// Returns all alerting rules with their names.
fn alerts() -> Vec<(String, Rule)> {
    rules::all().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

fn names() -> BTreeSet<String> {
    alerts().into_iter().map(|(alert, _)| alert).collect()
}

fn cases() -> impl Iterator<Item = Case> {
    files("compose/prometheus/rules/tests", "yml").into_iter().flat_map(|path| yaml::<TestFile>(&path).tests)
}

/// Runs `tool`, which must succeed, and returns its output.
fn run_tool(tool: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let output = Command::new(tool).args(arguments).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}; install it with `make tools`"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{tool}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Converts a duration such as `1d8h` to minutes.
fn minutes(time: &str) -> u64 {
    let parts = time.split_inclusive(|c: char| c.is_ascii_alphabetic());
    parts
        .map(|part| {
            part[..part.len() - 1].parse::<u64>().unwrap()
                * match &part[part.len() - 1..] {
                    "d" => 1_440,
                    "h" => 60,
                    _ => 1,
                }
        })
        .sum()
}

/// Returns whether `alert` is silent, then firing, then silent again in `case`.
fn fires_and_resolves(case: &Case, alert: &str) -> bool {
    let mut moments: Vec<_> = case.alert_rule_test.iter().filter(|moment| moment.alertname == alert).collect();
    moments.sort_by_key(|moment| minutes(&moment.eval_time));
    let mut fires: Vec<_> = moments.into_iter().map(|moment| !moment.exp_alerts.is_empty()).collect();
    fires.dedup();
    fires == if alert == WATCHDOG { &[true][..] } else { &[false, true, false] }
}

#[test]
fn prometheus_accepts_its_configuration_and_rules() {
    let said = run_tool("promtool", ["check", "config", "--lint=all", "--lint-fatal", "compose/prometheus/prometheus.yml"]);
    let rules = rules::files();
    assert!(said.contains(&format!("{} rule files found", rules.len())), "{said}");
    let check = ["check", "rules", "--lint=all", "--lint-fatal"].map(PathBuf::from);
    run_tool("promtool", check.into_iter().chain(rules));
}

#[test]
fn promtool_tests_pass() {
    let test = ["test", "rules"].map(PathBuf::from);
    run_tool("promtool", test.into_iter().chain(files("compose/prometheus/rules/tests", "yml")));
}

#[test]
fn alertmanager_routes_both_severities() {
    let config = "compose/alertmanager/alertmanager.yml";
    run_tool("amtool", ["check-config", config]);
    for severity in ["page", "ticket"] {
        let receiver = run_tool("amtool", ["config", "routes", "test", "--config.file", config, &format!("severity={severity}")]);
        assert_eq!(receiver.trim(), severity);
    }
    let receiver = run_tool("amtool", ["config", "routes", "test", "--config.file", config, &format!("alertname={WATCHDOG}")]);
    assert_eq!(receiver.trim(), "watchdog");
}

#[test]
fn each_alert_has_firing_and_resolving_test() {
    let cases: Vec<_> = cases().collect();
    let unproven: Vec<_> = names().into_iter().filter(|alert| !cases.iter().any(|case| fires_and_resolves(case, alert))).collect();
    assert!(unproven.is_empty(), "alerts without a silent-firing-silent test case: {unproven:?}");
    let tested = cases.iter().flat_map(|case| &case.alert_rule_test).map(|moment| moment.alertname.clone());
    assert_eq!(tested.collect::<BTreeSet<_>>(), names(), "tested alerts must equal the defined alerts");
}

#[test]
fn no_alert_fires_in_healthy_case() {
    let healthy: TestFile = yaml(Path::new("compose/prometheus/rules/tests/healthy.yml"));
    let moments: Vec<_> = healthy.tests.into_iter().flat_map(|case| case.alert_rule_test).collect();
    assert!(moments.iter().all(|moment| moment.exp_alerts.is_empty()));
    let mut expected = names();
    expected.remove(WATCHDOG);
    assert_eq!(moments.into_iter().map(|moment| moment.alertname).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn each_alert_has_severity_and_annotations() {
    for (alert, Rule { labels, annotations, .. }) in alerts() {
        let severities: &[&str] = if alert == WATCHDOG { &["none"] } else { &["page", "ticket"] };
        assert!(severities.contains(&labels["severity"].as_str()), "{alert}: {labels:?}");
        assert!(["summary", "description"].iter().all(|key| !annotations[*key].is_empty()), "{alert}");
        assert_eq!(annotations["runbook_url"], format!("https://github.com/palisade-rs/palisade/blob/main/docs/runbooks/{alert}.md"));
        let uid = annotations["dashboard"].strip_prefix("http://localhost:3001/d/palisade-").unwrap();
        assert!(DASHBOARDS.contains(&uid), "{alert} links to the unknown dashboard {uid}");
    }
    assert_eq!(alerts().len(), names().len(), "alert names must be unique");
}

#[test]
fn alerts_and_runbooks_correspond() {
    let pages: BTreeSet<_> =
        files("docs/runbooks", "md").iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let mut expected = names();
    expected.insert("README".to_owned());
    assert_eq!(pages, expected);
    let index = text("docs/runbooks/README.md");
    for (alert, Rule { labels, .. }) in alerts() {
        let page = text(format!("docs/runbooks/{alert}.md"));
        let kind = match labels["severity"].as_str() {
            "page" => "**Page.**",
            "ticket" => "**Ticket.**",
            _ => "**Always firing.**",
        };
        assert!(page.starts_with(&format!("# {alert}\n\n{kind}")), "{alert}: wrong heading in its runbook");
        for part in ["**For users:**", "**Look**", "**Do**", "**Clears**"] {
            assert!(page.contains(part), "{alert}: its runbook has no {part}");
        }
        let line = format!("- [{alert}]({alert}.md) ({}): ", labels["severity"]);
        assert_eq!(index.lines().filter(|entry| entry.starts_with(&line)).count(), 1, "missing line in the runbook index: {line}…");
        let linked = page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in linked.filter(|link| !link.contains("://")) {
            assert!(root().join("docs/runbooks").join(link).exists(), "{alert}: broken link {link} in its runbook");
        }
    }
}

#[test]
fn memory_alert_uses_container_limits() {
    let expr = alerts().into_iter().find(|(alert, _)| alert == "MemoryNearLimit").unwrap().1.expr;
    let containers: Containers = yaml(Path::new("compose/compose.yaml"));
    let limit = |service: &str| containers.services[service].mem_limit.strip_suffix('m').unwrap().to_owned();
    let expected = ["gateway", "products", "orders"]
        .map(|job| format!("process_resident_memory_bytes{{job=\"{job}\"}} > 0.85 * {} * 1024 * 1024", limit(job)));
    assert_eq!(expr.trim(), expected.join("\nor\n"));
}

/// Pages are symptoms of users, a stuck business process, or a violated invariant.
#[test]
fn only_symptoms_page() {
    let pages: BTreeSet<_> = alerts().into_iter().filter(|(_, rule)| rule.labels["severity"] == "page").map(|(alert, _)| alert).collect();
    let symptoms = ["AuthLockout", "ErrorBudgetBurnFast", "GatewayDown", "ProbeFailed", "TrafficDropped"];
    let orders = ["OrdersSettleLate", "SagaFailed", "SagaStuck", "StockInvariantViolated"];
    assert_eq!(pages, symptoms.into_iter().chain(orders).map(str::to_owned).collect());
}
