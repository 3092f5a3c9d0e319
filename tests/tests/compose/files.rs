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
    let flags = [
        ("prometheus", "--config.file="),
        ("alertmanager", "--config.file="),
        ("blackbox", "--config.file="),
        ("jaeger", "--config="),
        ("collector", "--config="),
        ("loki", "-config.file="),
    ];
    for (name, flag) in flags {
        let service = service(name);
        let command = texts(&service.settings["command"]);
        let file = command.iter().find_map(|argument| argument.strip_prefix(flag)).unwrap();
        assert!(service.repository_path(file).is_file(), "{name}: {file}");
    }
}

#[test]
fn images_are_built_once_with_revision() {
    let ours: Vec<_> = services().into_iter().filter(|service| service.settings["build"].is_object()).collect();
    assert_eq!(ours.len(), 4);
    for service in ours {
        let build = &service.settings["build"];
        // With equal arguments the images share the stage that compiles.
        assert_eq!(build["args"]["REVISION"], "${REVISION:-unknown}", "{}", service.name);
        assert_eq!(build["dockerfile"], "compose/Dockerfile", "{}", service.name);
        let target = if service.keeps_running() { service.name.as_str() } else { "tools" };
        assert_eq!(build["target"], target, "{}", service.name);
        let program = if service.keeps_running() { format!("/palisade-{target} /") } else { "/palisade /usr/local/bin/".to_owned() };
        let stage = stage(&dockerfile(), target);
        assert!(stage.contains(&format!("COPY --from=build {program}")), "{}: {stage}", service.name);
        assert!(!service.keeps_running() || stage.contains(&format!("ENTRYPOINT [\"/palisade-{target}\"]")), "{stage}");
    }
    let build = stage(&dockerfile(), "build");
    // After the sources, so that a new commit does not invalidate the dependency layers. Before the
    // build, which embeds it.
    let order = ["COPY . .", "ARG REVISION=", "ENV PALISADE_REVISION=$REVISION", "cargo build"].map(|line| build.find(line));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?}");
    assert_eq!(dockerfile().matches("cargo build").count(), 1);
}

fn dockerfile() -> String {
    read(&repository().join("compose/Dockerfile"))
}

/// Returns the instructions of a stage.
pub(crate) fn stage(dockerfile: &str, name: &str) -> String {
    let mut stages = dockerfile.split("\nFROM ");
    let found = stages.find(|stage| stage.lines().next().is_some_and(|from| from.ends_with(&format!(" AS {name}"))));
    found.unwrap_or_else(|| panic!("no stage {name}")).to_owned()
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
    assert!(
        ["gateway", "products", "orders", "jaeger", "collector", "postgres", "mongodb", "nats", "node", "probe-ready", "probe-read"]
            .iter()
            .all(|job| jobs.contains(job)),
        "{jobs:?}"
    );
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

/// Returns whether the port is a service's admin port, published, or exposed.
fn listens(host: &str, port: &str) -> bool {
    let service = service(host);
    let admin = service.environment().get("PALISADE_ADMIN_LISTEN").is_some_and(|address| address.ends_with(&format!(":{port}")));
    admin || service.listens(port)
}
