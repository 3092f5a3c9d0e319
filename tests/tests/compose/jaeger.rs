//! Jaeger configuration. Jaeger exits at start if a reference is undefined.

use std::collections::BTreeSet;

use palisade_tests::files::{repository, texts, yaml};
use serde_json::Value;

use crate::stack::{mebibytes, service};

fn configuration() -> Value {
    yaml(&repository().join("compose/jaeger/config.yaml"))
}

fn names(of: &Value) -> BTreeSet<String> {
    of.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[test]
fn pipelines_reference_all_defined_components() {
    let jaeger = configuration();
    let connectors = names(&jaeger["connectors"]);
    let pipelines: Vec<_> = jaeger["service"]["pipelines"].as_object().unwrap().values().collect();
    let named = |role: &str| pipelines.iter().flat_map(|pipeline| texts(&pipeline[role])).collect::<BTreeSet<_>>();
    // A connector is the exporter of one pipeline and the receiver of another.
    for role in ["receivers", "exporters"] {
        assert_eq!(named(role), &names(&jaeger[role]) | &connectors, "{role}");
    }
    assert_eq!(named("processors"), names(&jaeger["processors"]));
    let extensions: BTreeSet<_> = texts(&jaeger["service"]["extensions"]).into_iter().collect();
    assert_eq!(extensions, names(&jaeger["extensions"]));
    let first = pipelines.iter().find_map(|pipeline| texts(&pipeline["processors"]).first().cloned());
    assert_eq!(first.as_deref(), Some("memory_limiter"), "the memory limiter must be the first processor");
}

#[test]
fn query_reads_the_storage_that_is_written() {
    let jaeger = configuration();
    let [storage, query] = ["jaeger_storage", "jaeger_query"].map(|extension| &jaeger["extensions"][extension]);
    let traces = &query["storage"]["traces"];
    assert_eq!(*traces, jaeger["exporters"]["jaeger_storage_exporter"]["trace_storage"]);
    let backend = &storage["backends"][traces.as_str().unwrap()]["badger"];
    // On its volume, and deleted after a while.
    let mounts = service("jaeger").mounts();
    for directory in ["keys", "values"].map(|kind| backend["directories"][kind].as_str().unwrap()) {
        assert!(mounts.iter().any(|mount| !mount.read_only && directory.starts_with(&mount.target)), "{directory}");
    }
    assert_eq!((&backend["ephemeral"], &backend["ttl"]["spans"]), (&false.into(), &"48h".into()));
    let metrics = query["storage"]["metrics"].as_str().unwrap();
    assert_eq!(names(&storage["metric_backends"]), [metrics.to_owned()].into());
    // The Monitor tab queries the names that the exporter derives from the connector's metrics.
    let prometheus = &storage["metric_backends"][metrics]["prometheus"];
    assert_eq!((&prometheus["normalize_calls"], &prometheus["normalize_duration"]), (&true.into(), &true.into()));
    assert_eq!(jaeger["connectors"]["spanmetrics"]["histogram"]["unit"], "ms");
    let ui = service("jaeger").repository_path(query["ui"]["config_file"].as_str().unwrap());
    assert_eq!(yaml(&ui)["monitor"]["menuEnabled"], true);
}

#[test]
fn jaeger_listens_on_expected_endpoints() {
    let (jaeger, container) = (configuration(), service("jaeger"));
    let spans = jaeger["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].as_str().unwrap();
    assert_eq!(spans, "0.0.0.0:4317");
    assert!(container.listens("4317"));
    let health = jaeger["extensions"]["healthcheckv2"]["http"]["endpoint"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
    let check = texts(&container.settings["healthcheck"]["test"]);
    assert_eq!(check.last(), Some(&format!("http://{health}/status")));
}

#[test]
fn memory_limiter_is_below_container_limit() {
    let (jaeger, container) = (configuration(), service("jaeger"));
    let limiter = jaeger["processors"]["memory_limiter"]["limit_mib"].as_u64().unwrap();
    let runtime = mebibytes(&container.environment()["GOMEMLIMIT"]);
    assert!(limiter < runtime && runtime < container.memory(), "{limiter} {runtime} {}", container.memory());
}
