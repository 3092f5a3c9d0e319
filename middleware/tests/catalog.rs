//! Metrics catalog: both stacks record exactly the names and labels of the catalog.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use palisade_middleware::{
    auth::Verifier,
    client,
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    metrics::{self, CATALOG},
    rejection::Rejection,
    respond::Protocol,
    retry::MethodContracts,
    server,
    store_instrumentation::{Database, InstrumentedCalls, Operation, PoolMetrics, StoreError},
};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt, layer::util::Identity};

const CALL: &str = "/test.v1.Test/Get";

static METHODS: [Method; 3] = [
    Method::grpc(CALL, Access::Public),
    Method::http("GET", "/things/{id}", Access::Public),
    Method::http("GET", "/secrets", Access::Scope("secrets:read")),
];

/// Recorded elsewhere: process start, accept loop, readiness, registration, and readers of keys and
/// revocation lists.
const ELSEWHERE: &[&str] = &[
    "build.info",
    "palisade.connections.closed",
    "palisade.connections.open",
    "palisade.connections.limit",
    "palisade.connections.waiting_bytes",
    "palisade.jwks.refreshes",
    "palisade.revocation_list.reloads",
    "palisade.tls.certificate.expiry",
    "palisade.tls.reloads",
    "palisade.ready",
    "palisade.dependency.up",
    "palisade.registration.up",
    "palisade.registration.changes",
    "palisade.log.records",
    "palisade.log.dropped",
    "palisade.store.clock_offset",
];
/// Families recorded elsewhere: span exporter, tail sampling, process and tokio runtime.
const FAMILIES_ELSEWHERE: [&str; 4] = ["otel.sdk.", "palisade.tail_sampling.", "process_", "tokio"];

type Labels = BTreeSet<String>;

/// Serves requests that succeed, are rejected, have no route, or panic in the handler.
async fn serve(protocol: Protocol) {
    let handler = tower::service_fn(async |request: Request<axum::body::Body>| {
        assert!(request.uri().path() != "/things/panic", "a bug");
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    });
    let table = Arc::new(MethodTable::new(&[&METHODS]).unwrap());
    let verifier = Arc::new(Verifier::new(Vec::new(), Arc::new(SystemClock)).unwrap());
    let mut stack = server::stack(protocol, handler, table, verifier, Faults::disabled(), &server::Config::default());
    for path in [CALL, "/things/1", "/things/panic", "/secrets", "/nowhere"] {
        let request = Request::get(path).header("grpc-timeout", "soon").body(Body::empty()).unwrap();
        exchange(&mut stack, request).await;
    }
}

/// Makes calls that succeed, are retried, or reach no server.
async fn call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let endpoint = tower::service_fn(move |_: Request<Body>| {
        let succeeds = calls.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        let status = if succeeds { Status::ok("") } else { Status::unavailable("not now") };
        async move { Ok::<_, Rejection>(status.into_http::<Body>()) }
    });
    let idempotent = MethodContracts::from_iter([CALL]);
    let unreachable = client::Config::at("http://127.0.0.1:1,http://127.0.0.1:2");
    let connected = client::connect("nobody", &unreachable, idempotent.clone(), Identity::new()).unwrap();
    let in_process = client::stack("test", &unreachable, idempotent, Identity::new(), endpoint).unwrap();
    let discovered = client::Config::at("dns://nobody:1?server=127.0.0.1:1");
    let discovered = client::connect("nobody", &discovered, MethodContracts::default(), Identity::new()).unwrap();
    for mut client in [in_process, connected, discovered] {
        let request = Request::post(CALL).body(Body::empty()).unwrap();
        exchange(&mut client, request).await;
    }
    let origin = "http://127.0.0.1:1".parse().unwrap();
    let client = client::http("nobody", &origin, &client::HttpConfig::default(), reqwest::Client::builder()).unwrap();
    client.oneshot(Request::get("/").body(Bytes::new()).unwrap()).await.unwrap_err();
}

#[derive(Debug)]
struct Failed;

impl StoreError for Failed {
    fn timeout() -> Self {
        Self
    }

    fn kind(&self) -> &'static str {
        "failed"
    }
}

/// Runs store calls that succeed and fail, and a pool.
async fn store() {
    let database = Database { system: "sqlite", namespace: "test.db".into(), server: None };
    let calls = InstrumentedCalls::new(database, &[]);
    let (find, limit) = (Operation::new("find", "things"), Duration::from_secs(1));
    calls.run(find, limit, async { Ok::<_, Failed>(()) }).await.unwrap();
    calls.run(find, limit, async { Err::<(), _>(Failed) }).await.unwrap_err();
    PoolMetrics::new("test", 1).wait().acquired();
}

async fn exchange<S, R>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
    R: http_body::Body,
{
    // A locally rejected call has no response.
    if let Ok(response) = service.ready().await.unwrap().call(request).await {
        assert!(response.into_body().collect().await.is_ok());
    }
}

fn is_elsewhere(name: &str) -> bool {
    ELSEWHERE.contains(&name) || FAMILIES_ELSEWHERE.iter().any(|family| name.starts_with(family))
}

/// Label names of each exposed metric, except the `le` of histogram buckets.
fn families(text: &str) -> BTreeMap<String, Labels> {
    let mut families = BTreeMap::<String, Labels>::new();
    let known: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
        let family = ["", "_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| sample.strip_suffix(suffix));
        let family = family.into_iter().find(|name| known.contains(name)).unwrap();
        let keys = labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0));
        families.entry(family.to_owned()).or_default().extend(keys.filter(|key| *key != "le").map(str::to_owned));
    }
    families
}

#[tokio::test]
async fn recorded_metrics_match_the_catalog() {
    let builder = PrometheusBuilder::new().with_recommended_naming(true).set_buckets(&[1.0]).unwrap();
    let handle = builder.install_recorder().unwrap();
    metrics::describe(CATALOG);
    serve(Protocol::Grpc).await;
    serve(Protocol::Http).await;
    call().await;
    store().await;

    let mut recorded = families(&handle.render());
    for metric in CATALOG.iter().filter(|metric| !is_elsewhere(metric.name)) {
        let labels: Labels = metric.labels.iter().map(|label| label.replace('.', "_")).collect();
        assert_eq!(recorded.remove(&metric.exposed()), Some(labels), "{}", metric.name);
    }
    assert_eq!(recorded, BTreeMap::new(), "not in the catalog");
}
