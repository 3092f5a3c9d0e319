use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::{Instant, timeout};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    context::Context,
    jitter::RandomFn,
    method_table::{Access, Method},
    rejection::{Retry, reasons},
};

static THINGS: Method = Method::http("GET", "/things/{id}", Access::Public);
static OTHERS: Method = Method::http("GET", "/others", Access::Public);

fn always(kind: Kind) -> Vec<Rule> {
    vec![Rule { name: "ours".to_owned(), method: "GET /things/*".to_owned(), rate: 1.0, kind }]
}

fn faults(draw: RandomFn) -> Faults {
    Faults::build(true, [&THINGS, &OTHERS].map(|method| (format!("GET {}", method.path), method)).into(), draw)
}

/// Sends a request through the layer to a handler that answers "x".
async fn send(faults: &Faults, verb: http::Method, method: Option<&'static Method>) -> Result<Response<FaultBody<Full<Bytes>>>, Rejection> {
    let handler = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("x")))) });
    let mut request = Request::builder().method(verb).body(()).unwrap();
    request.extensions_mut().insert(Context { method, ..Context::background() });
    FaultLayer(faults.clone()).layer(handler).oneshot(request).await
}

async fn get(faults: &Faults, method: &'static Method) -> Result<Bytes, Rejection> {
    Ok(send(faults, http::Method::GET, Some(method)).await?.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test(start_paused = true)]
async fn latency_delays_handler_until_rule_is_removed() {
    let faults = faults(|| 0.0);
    faults.replace(always(Kind::Latency { ms: 300, jitter_ms: 100 })).unwrap();
    for (method, ms) in [(&THINGS, 200), (&OTHERS, 0)] {
        let start = Instant::now();
        assert_eq!(get(&faults, method).await.unwrap(), "x");
        assert_eq!(start.elapsed().as_millis(), ms, "{method:?}");
    }
    faults.replace(Vec::new()).unwrap();
    let start = Instant::now();
    get(&faults, &THINGS).await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 0);
}

#[tokio::test(start_paused = true)]
async fn injected_error_differs_only_in_the_log() {
    let faults = faults(|| 0.0);
    let slow = Rule { name: "slow".to_owned(), ..always(Kind::Latency { ms: 50, jitter_ms: 0 }).remove(0) };
    faults.replace([always(Kind::Error("overloaded".to_owned())), vec![slow]].concat()).unwrap();
    let start = Instant::now();
    let refusal = get(&faults, &THINGS).await.unwrap_err();
    assert_eq!(start.elapsed().as_millis(), 50);
    assert_eq!((refusal.reason(), refusal.retry()), (&reasons::OVERLOADED, Retry::After(Duration::from_secs(1))));
    assert!(!refusal.detail().contains("injected"), "{refusal}");
    assert!(format!("{refusal:?}").contains("injected by fault rule ours"), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn hang_lasts_until_the_caller_cancels() {
    let faults = faults(|| 0.0);
    faults.replace(always(Kind::Hang)).unwrap();
    assert!(timeout(Duration::from_hours(1), get(&faults, &THINGS)).await.is_err());
}

#[tokio::test]
async fn aborted_response_fails_at_its_first_frame() {
    let faults = faults(|| 0.0);
    faults.replace(always(Kind::Abort)).unwrap();
    let answer = send(&faults, http::Method::GET, Some(&THINGS)).await.unwrap();
    assert!(!answer.body().is_end_stream());
    assert!(answer.into_body().frame().await.unwrap().is_err());
    // The body of a HEAD response is never read, and status 200 would be no fault at all.
    assert_eq!(send(&faults, http::Method::HEAD, Some(&THINGS)).await.unwrap_err().reason(), &reasons::INTERNAL);
}

#[tokio::test]
async fn probes_and_unlisted_methods_are_never_hit() {
    static PROBE: Method = Method::http("GET", "/livez", Access::Public).infrastructure();
    static TABLE: [Method; 2] =
        [Method::http("GET", "/livez", Access::Public).infrastructure(), Method::http("GET", "/things", Access::Public)];
    let table = crate::method_table::MethodTable::new(&[&TABLE]).unwrap();
    let faults = Faults::new(&Config { enabled: true }, crate::protocol::Protocol::Http, &table);
    let all = Rule { method: "*".to_owned(), ..always(Kind::Hang).remove(0) };
    faults.replace(vec![all]).unwrap();
    for method in [None, Some(&PROBE), table.find(&http::Method::GET, "/livez")] {
        assert!(send(&faults, http::Method::GET, method).await.is_ok(), "{method:?}");
    }
    let things = table.find(&http::Method::GET, "/things");
    assert!(timeout(Duration::from_millis(1), send(&faults, http::Method::GET, things)).await.is_err());
    let probe = Rule { method: "GET /livez".to_owned(), ..always(Kind::Hang).remove(0) };
    assert!(faults.replace(vec![probe]).is_err());
}

#[test]
fn metrics_sum_rules_and_exist_from_the_start() {
    let recorder = PrometheusBuilder::new().with_recommended_naming(true).build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let (one, other) = (faults(|| 0.0), faults(|| 0.0));
        let rendered = handle.render();
        for line in ["palisade_faults_active 0", r#"palisade_faults_injected_total{kind="hang"} 0"#] {
            assert!(rendered.lines().any(|rendered_line| rendered_line == line), "{line} in {rendered}");
        }
        one.replace(always(Kind::Error("internal".to_owned()))).unwrap();
        other.replace(always(Kind::Hang)).unwrap();
        assert!(handle.render().contains("palisade_faults_active 2\n"));
        other.replace(Vec::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(get(&one, &THINGS)).unwrap_err();
    });
    let rendered = handle.render();
    for line in ["palisade_faults_active 1", r#"palisade_faults_injected_total{kind="error"} 1"#] {
        assert!(rendered.lines().any(|rendered_line| rendered_line == line), "{line} in {rendered}");
    }
}
