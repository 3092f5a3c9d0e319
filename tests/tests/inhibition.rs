//! Alertmanager inhibition, on a real Alertmanager: one cause makes one page.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use palisade_tests::{eventually, free_port::free_port, rules};
use serde_json::Value;
use tempfile::TempDir;

/// Running Alertmanager with the configuration of compose. Dropping it kills it.
struct Alertmanager {
    server: Child,
    url: String,
    _data: TempDir,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/alertmanager/alertmanager.yml")
}

impl Alertmanager {
    async fn start() -> Self {
        let (data, port) = (TempDir::with_prefix("palisade-alertmanager-").unwrap(), free_port());
        // Debian's name, and that of the release.
        let server = ["prometheus-alertmanager", "alertmanager"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg(format!("--config.file={}", config().display())).arg(format!("--storage.path={}", data.path().display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--cluster.listen-address=");
            match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
                Ok(server) => Some(server),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => panic!("{program}: {error}"),
            }
        });
        let server = server.expect("Alertmanager is missing; install it with `make tools`");
        let alertmanager = Self { server, url: format!("http://127.0.0.1:{port}"), _data: data };
        eventually(async || alertmanager.amtool(&["config", "show"]).map(drop)).await;
        alertmanager
    }

    fn amtool(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("amtool").arg(format!("--alertmanager.url={}", self.url)).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Returns the names of the alerts of a severity that are sent, or inhibited.
    fn alerts(&self, severity: &str, inhibited: bool) -> BTreeSet<String> {
        let mut arguments = vec!["alert", "query", "--output=json"];
        if inhibited {
            arguments.push("--inhibited");
        }
        let severity = format!("severity={severity}");
        arguments.push(&severity);
        let found: Vec<Value> = serde_json::from_str(&self.amtool(&arguments).unwrap()).unwrap();
        found.iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }
}

/// Alerts of one cause, as `name{label=value,…}`, and the pages and tickets that are sent.
type Cause = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const CAUSES: [Cause; 8] = [
    (
        "all gateways are gone",
        &[
            "GatewayDown{job=gateway}",
            "ProbeFailed{job=probe-read,instance=a}",
            "ProbeFailed{job=probe-ready,instance=b}",
            "ErrorBudgetBurnFast{job=gateway,slo=gateway-availability}",
            "ErrorBudgetBurnSlow{job=gateway,slo=gateway-availability}",
            "TargetDown{job=gateway,instance=gateway:9464}",
            "SagaStuck{job=orders}",
            "OrdersSettleLate{job=orders,slo=orders-settled}",
        ],
        &["GatewayDown"],
        &[],
    ),
    (
        "the network before the gateway",
        &["ProbeFailed{job=probe-read,instance=a}", "TrafficDropped{job=gateway,slo=gateway-availability}"],
        &["ProbeFailed"],
        &[],
    ),
    (
        "products hangs",
        &[
            "ErrorBudgetBurnFast{job=gateway,slo=gateway-availability}",
            "ErrorBudgetBurnFast{job=gateway,slo=gateway-latency}",
            "ErrorBudgetBurnSlow{job=gateway,slo=gateway-availability}",
            "ServiceErrorBudgetBurnFast{job=products,slo=products-availability}",
            "SagaStuck{job=orders,saga=order}",
            "SagaFailed{job=orders,saga=order}",
            "OrdersSettleLate{job=orders,slo=orders-settled}",
            "BreakerOpen{job=gateway,target=products,scope=target}",
        ],
        &["ErrorBudgetBurnFast"],
        &["BreakerOpen", "ServiceErrorBudgetBurnFast"],
    ),
    (
        "products answers late, and orders wait for it",
        &[
            "OrdersSettleLate{job=orders,slo=orders-settled}",
            "ErrorBudgetBurnSlow{job=orders,slo=orders-settled}",
            "ServiceErrorBudgetBurnFast{job=products,slo=products-latency}",
            "SagaFailed{job=orders,saga=order}",
        ],
        &["OrdersSettleLate"],
        &["ServiceErrorBudgetBurnFast"],
    ),
    (
        "all replicas of products are down, and the cache hides it",
        &[
            "ServiceDown{job=products}",
            "TargetDown{job=products,instance=a:9465}",
            "TargetDown{job=products,instance=b:9465}",
            "BreakerOpen{job=gateway,target=products,scope=target}",
        ],
        &[],
        &["BreakerOpen", "ServiceDown"],
    ),
    (
        "one replica of two is down",
        &["TargetDown{job=orders,instance=a:9466}", "NotReady{job=orders,instance=a:9466}", "OutboxLag{job=orders}"],
        &[],
        &["OutboxLag", "TargetDown"],
    ),
    (
        "the store of orders is down",
        &[
            "DependencyDown{job=orders,dependency=postgresql,required=true}",
            "NotReady{job=orders,instance=a:9466}",
            "StoreStatsStale{job=orders,name=orders.stats}",
            "AuditStale{job=orders,check=orders}",
            "SagaStuck{job=orders,saga=order}",
            "SagaFailed{job=orders,saga=order}",
            "OrdersSettleLate{job=orders,slo=orders-settled}",
        ],
        &["SagaStuck"],
        &["DependencyDown"],
    ),
    (
        "two causes: a violated invariant, and no gateway",
        &["GatewayDown{job=gateway}", "StockInvariantViolated{job=products,check=stock}"],
        &["GatewayDown", "StockInvariantViolated"],
        &[],
    ),
];

/// Returns the arguments of `amtool alert add`.
fn labels(alert: &str, severities: &BTreeMap<String, String>) -> Vec<String> {
    let (name, labels) = alert.split_once('{').unwrap_or((alert, "}"));
    let severity = severities.get(name).unwrap_or_else(|| panic!("no alert {name}"));
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).map(str::to_owned);
    [format!("alertname={name}"), format!("severity={severity}")].into_iter().chain(labels).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cause_makes_one_page() {
    let alerts = rules::all().into_iter().filter_map(|rule| Some((rule.alert?, rule.labels["severity"].clone())));
    let severities: BTreeMap<String, String> = alerts.collect();
    for (cause, firing, pages, tickets) in CAUSES {
        let alertmanager = Alertmanager::start().await;
        for alert in firing {
            let labels = labels(alert, &severities);
            let arguments: Vec<&str> = ["alert", "add"].into_iter().chain(labels.iter().map(String::as_str)).collect();
            alertmanager.amtool(&arguments).unwrap_or_else(|| panic!("{alert} was not accepted"));
        }
        let fired: BTreeSet<String> = firing.iter().map(|alert| alert.split('{').next().unwrap().to_owned()).collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        // All have arrived, sent or inhibited.
        eventually(async || {
            let found = ["page", "ticket"].map(|severity| [false, true].map(|inhibited| alertmanager.alerts(severity, inhibited)));
            let all: BTreeSet<String> = found.iter().flatten().flatten().cloned().collect();
            (all == fired).then_some(())
        })
        .await;
        assert_eq!(alertmanager.alerts("page", false), names(pages), "pages of: {cause}");
        assert_eq!(alertmanager.alerts("ticket", false), names(tickets), "tickets of: {cause}");
    }
}
