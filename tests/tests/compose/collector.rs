//! Collector configuration: the collector exits at start if a reference is undefined.

use std::collections::BTreeSet;

use palisade_tests::files::{repository, texts, yaml};
use serde_json::Value;

use crate::stack::{mebibytes, service};

fn configuration() -> Value {
    yaml(&repository().join("compose/collector/config.yaml"))
}

fn names(of: &Value) -> BTreeSet<String> {
    of.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[test]
fn pipelines_reference_all_defined_components() {
    let collector = configuration();
    let pipelines: Vec<_> = collector["service"]["pipelines"].as_object().unwrap().values().collect();
    for role in ["receivers", "processors", "exporters"] {
        let used: BTreeSet<_> = pipelines.iter().flat_map(|pipeline| texts(&pipeline[role])).collect();
        assert_eq!(used, names(&collector[role]), "{role}");
    }
    for pipeline in pipelines {
        assert_eq!(texts(&pipeline["processors"]).first().map(String::as_str), Some("memory_limiter"));
    }
}

#[test]
fn exporters_reach_jaeger_and_loki() {
    let exporters = &configuration()["exporters"];
    let [jaeger, loki] = [&exporters["otlp/jaeger"], &exporters["otlphttp/loki"]].map(|exporter| exporter["endpoint"].as_str().unwrap());
    for address in [jaeger, loki.trim_start_matches("http://").trim_end_matches("/otlp")] {
        let (host, port) = address.split_once(':').unwrap();
        assert!(service(host).listens(port), "{address}");
    }
    assert!(loki.ends_with("/otlp"), "Loki accepts OTLP below /otlp");
    let limits = &yaml(&repository().join("compose/loki/config.yaml"))["limits_config"];
    assert_eq!(limits["allow_structured_metadata"], true, "the trace id of a record is structured metadata");
}

#[test]
fn services_send_spans_and_records_to_collector() {
    let (collector, container) = (configuration(), service("collector"));
    let receivers = &collector["receivers"];
    assert_eq!(receivers["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317");
    assert_eq!(receivers["otlp"]["protocols"]["http"]["endpoint"], "0.0.0.0:4318");
    let records = receivers["fluentforward"]["endpoint"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
    for name in ["gateway", "products", "orders"] {
        let service = service(name);
        assert_eq!(service.environment()["PALISADE_TELEMETRY__OTLP_ENDPOINT"], "http://collector:4317", "{name}");
        // Docker connects from the host, and must not wait for the collector.
        let logging = &service.settings["logging"];
        assert_eq!((&logging["driver"], &logging["options"]["fluentd-async"]), (&"fluentd".into(), &"true".into()), "{name}");
        assert_eq!(logging["options"]["fluentd-address"], records, "{name}");
    }
    for port in ["4317", "4318", "24224"] {
        assert!(container.ports().iter().any(|open| open.published.to_string() == port), "{port}");
    }
}

#[test]
fn memory_limiter_is_below_container_limit() {
    let (collector, container) = (configuration(), service("collector"));
    let limiter = collector["processors"]["memory_limiter"]["limit_mib"].as_u64().unwrap();
    let runtime = mebibytes(&container.environment()["GOMEMLIMIT"]);
    assert!(limiter < runtime && runtime < container.memory(), "{limiter} {runtime} {}", container.memory());
}
