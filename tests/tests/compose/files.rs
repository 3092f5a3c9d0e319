//! Files mounted by the containers, and their references to each other.

use std::collections::BTreeSet;

use palisade_tests::files::{read, repository, texts, yaml};
use serde_json::{Value, json};

use crate::stack::{Mount, Service, service, services};

#[test]
fn mounted_files_exist_in_repository() {
    let mounts: Vec<_> = services().iter().flat_map(Service::mounts).filter(Mount::is_in_repository).collect();
    assert!(mounts.len() >= 6, "{mounts:?}");
    for mount in mounts {
        assert!(mount.path().exists(), "{} is missing", mount.path().display());
        assert!(mount.read_only, "{} is mounted writable", mount.source);
    }
    for (name, flag) in
        [("prometheus", "--config.file="), ("alertmanager", "--config.file="), ("blackbox", "--config.file="), ("jaeger", "--config=")]
    {
        let service = service(name);
        let command = texts(&service.settings["command"]);
        let file = command.iter().find_map(|argument| argument.strip_prefix(flag)).unwrap();
        assert!(service.repository_path(file).is_file(), "{name}: {file}");
    }
}

#[test]
fn dockerfiles_build_services_with_revision() {
    let ours: Vec<_> = services().into_iter().filter(|service| service.settings["build"].is_object()).collect();
    assert_eq!(ours.len(), 4);
    for service in ours {
        let build = &service.settings["build"];
        let dockerfile = read(&repository().join(build["dockerfile"].as_str().unwrap()));
        if service.keeps_running() {
            assert_eq!(build["args"]["REVISION"], "${REVISION:-unknown}", "{}", service.name);
            // After the sources, so that a new commit does not invalidate the dependency layers.
            // Before the build, which embeds it.
            let order = ["COPY . .", "ARG REVISION=", "ENV PALISADE_REVISION=$REVISION", "cargo build"].map(|line| dockerfile.find(line));
            assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{}: {order:?}", service.name);
            assert!(dockerfile.contains(&format!("--package palisade-{} ", service.name)), "{}", service.name);
        }
    }
}

#[test]
fn prometheus_targets_exist_in_stack() {
    let prometheus = yaml(&repository().join("compose/prometheus/prometheus.yml"));
    let mut jobs = BTreeSet::new();
    for scrape in prometheus["scrape_configs"].as_array().unwrap() {
        let job = scrape["job_name"].as_str().unwrap();
        jobs.insert(job);
        let probe = scrape["metrics_path"] == "/probe";
        if probe {
            let exporter = scrape["relabel_configs"].as_array().unwrap().last().unwrap();
            assert_eq!((&exporter["target_label"], &exporter["replacement"]), (&json!("__address__"), &json!("blackbox:9115")));
            assert!(probe_modules().contains(scrape["params"]["module"][0].as_str().unwrap()), "{job}");
        }
        for target in targets(scrape) {
            let url = target.strip_prefix("http://").filter(|_| probe);
            let target = url.map_or(target.as_str(), |url| url.split('/').next().unwrap());
            let (host, port) = target.split_once(':').unwrap();
            let host = if host == "localhost" { "prometheus" } else { host };
            assert!(listens(host, port), "{job}: nothing listens at {target}");
        }
    }
    assert!(["gateway", "products", "orders", "jaeger", "probe-ready", "probe-read"].iter().all(|job| jobs.contains(job)), "{jobs:?}");
    let alertmanagers: Vec<_> = prometheus["alerting"]["alertmanagers"].as_array().unwrap().iter().flat_map(targets).collect();
    assert_eq!(alertmanagers, ["alertmanager:9093"]);
    assert!(listens("alertmanager", "9093"));
}

/// Returns the modules that the blackbox exporter knows.
fn probe_modules() -> BTreeSet<String> {
    let modules = yaml(&repository().join("compose/blackbox/blackbox.yml"));
    modules["modules"].as_object().unwrap().keys().cloned().collect()
}

fn targets(scrape: &Value) -> Vec<String> {
    scrape["static_configs"].as_array().into_iter().flatten().flat_map(|targets| texts(&targets["targets"])).collect()
}

/// Returns whether the port is a service's admin port, a published port, or one that Jaeger's
/// configuration opens for Prometheus.
fn listens(host: &str, port: &str) -> bool {
    let service = service(host);
    let admin = service.environment().get("PALISADE_ADMIN_LISTEN").is_some_and(|address| address.ends_with(&format!(":{port}")));
    let jaeger = host == "jaeger" && read(&repository().join("compose/jaeger/config.yaml")).contains(port);
    admin || jaeger || service.ports().iter().any(|open| open.inside.to_string() == port)
}
