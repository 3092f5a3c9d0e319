//! Private Prometheus server: scraping, rules and queries.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::free_port;
use crate::{
    child::Child,
    client::{Client, query},
    eventually,
    shop::{SERVICES, Shop},
};

/// Running Prometheus. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Prometheus {
    // Drop order: process before data.
    _server: Child,
    directory: TempDir,
    port: u16,
}

/// Series and value of an instant query.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Labels, including the metric name as `__name__`. Empty for a scalar.
    pub labels: BTreeMap<String, String>,
    /// Value, possibly `NaN` or infinite.
    pub value: f64,
}

impl Prometheus {
    /// Starts a server with this configuration. File references should be absolute paths.
    pub fn start(configuration: &str) -> Self {
        let directory = TempDir::with_prefix("palisade-prometheus-").expect("a temporary directory can be made");
        fs::write(directory.path().join("prometheus.yml"), configuration).expect("a temporary directory takes files");
        let mut log = String::new();
        let (server, port) = (0..3)
            .map(|_| free_port())
            .find_map(|port| Some((run(directory.path(), port, &mut log)?, port)))
            .unwrap_or_else(|| panic!("Prometheus failed to start with\n{configuration}\n{log}"));
        Self { _server: server, directory, port }
    }

    /// Starts a server that scrapes the shop's admin ports every second, with the jobs `gateway`,
    /// `products` and `orders`, and evaluates these rule files as often.
    pub fn scraping(shop: &Shop, rule_files: &[impl AsRef<Path>]) -> Self {
        Self::start(&configuration(shop, rule_files))
    }

    /// Returns the base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the directory of configuration and data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until every target has been scraped once, successfully or not. At least one target is
    /// required. Prometheus activates targets 5 seconds after its start.
    pub async fn ready(&self) {
        eventually(async || {
            let targets = self.api("/api/v1/targets?state=active").await["activeTargets"].as_array().map_or(0, Vec::len);
            let scraped = self.query("count by (job, instance) (up)").await.len();
            (targets > 0 && scraped >= targets).then_some(())
        })
        .await;
    }

    /// Evaluates an expression now: an instant vector, or a scalar as one sample without labels.
    pub async fn query(&self, expression: &str) -> Vec<Sample> {
        let data = self.api(&format!("/api/v1/query{}", query(&[("query", expression)]))).await;
        match data["resultType"].as_str() {
            Some("vector") => data["result"].as_array().expect("a vector is an array").iter().map(Sample::of).collect(),
            Some("scalar") => vec![Sample { labels: BTreeMap::new(), value: number(&data["result"]) }],
            _ => panic!("`{expression}` is neither an instant vector nor a scalar: {data}"),
        }
    }

    /// Returns the `data` of an API response
    /// (<https://prometheus.io/docs/prometheus/latest/querying/api/>).
    pub async fn api(&self, path: &str) -> Value {
        let answer = Client::new(self.url(), None).get(path).attempt().await;
        let answer = answer.unwrap_or_else(|error| panic!("Prometheus request {path} failed: {error}")).json();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }
}

impl Sample {
    fn of(series: &Value) -> Self {
        let labels = series["metric"].as_object().expect("a series has labels");
        let labels = labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        Self { labels: labels.collect(), value: number(&series["value"]) }
    }

    /// Returns the value of a label, empty if it is absent, as in Prometheus itself.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Parses the value of `[time, "value"]`.
fn number(value: &Value) -> f64 {
    value[1].as_str().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("not a number: {value}"))
}

fn configuration(shop: &Shop, rule_files: &[impl AsRef<Path>]) -> String {
    let mut text = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\nrule_files:\n".to_owned();
    for file in rule_files {
        // JSON strings are valid YAML.
        let _ = writeln!(text, "  - {}", Value::from(file.as_ref().to_str().expect("a rule file's path is UTF-8")));
    }
    text += "scrape_configs:\n";
    for service in SERVICES {
        let admins: Vec<_> = shop.replicas(service).iter().map(|replica| replica.admin_url(service)).collect();
        let targets: Vec<_> = admins.iter().map(|admin| admin.trim_start_matches("http://")).collect();
        let _ = writeln!(text, "  - {{ job_name: {service}, static_configs: [{{ targets: {targets:?} }}] }}");
    }
    text
}

/// Starts the server. `None` if it exits before it is ready, with its output in `log`.
fn run(directory: &Path, port: u16, log: &mut String) -> Option<Child> {
    let mut command = Command::new(program());
    command.arg("--config.file").arg(directory.join("prometheus.yml")).arg("--storage.tsdb.path").arg(directory.join("data"));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    // Same features as in compose/: remote write for k6, exemplars that link to traces.
    command.args(["--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage"]);
    // SIGKILL, because a graceful stop is slow and the data is disposable.
    let server = Child::spawn(&command, Some(directory), Signal::KILL).expect("prometheus can be started");
    let ready = server.wait_for_line(|line| line.contains("Server is ready to receive web requests").then_some(()));
    *log = server.last_lines();
    ready.map(|()| server)
}

fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|place| place.join("prometheus")).find(|program| program.is_file());
    found.expect("Prometheus is missing: run `make tools` as root (or `make test`, which does), or install the package `prometheus`")
}
