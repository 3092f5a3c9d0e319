use std::{future::pending, pin::pin};

use futures_util::poll;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tokio::time::{advance, sleep};
use tracing::{Instrument, info_span, instrument::WithSubscriber};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::in_memory_exporter::Kept;

const FIND: Operation = Operation::new("find", "orders");
const LIMIT: Duration = Duration::from_secs(4);

#[derive(Debug, PartialEq)]
enum TestError {
    Timeout,
    Corrupt,
}

impl StoreError for TestError {
    fn timeout() -> Self {
        Self::Timeout
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Corrupt => "corrupt",
        }
    }
}

fn recorder() -> (PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

fn calls() -> InstrumentedCalls {
    let server = Some(("db.internal".into(), 5432));
    InstrumentedCalls::new(Database { system: "postgresql", namespace: "shop".into(), server }, &[FIND])
}

/// Number of calls that ended with `error`, and their total duration in seconds.
fn recorded(handle: &PrometheusHandle, error: &str) -> Option<(u32, f64)> {
    let labels = format!(
        r#"{{db_system_name="postgresql",db_namespace="shop",db_collection_name="orders",db_operation_name="find",error_type="{error}"}}"#
    );
    let count = value(handle, &format!("db_client_operation_duration_count{labels}"))?;
    Some((count.parse().unwrap(), value(handle, &format!("db_client_operation_duration_sum{labels}"))?.parse().unwrap()))
}

fn value(handle: &PrometheusHandle, series: &str) -> Option<String> {
    handle.render().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

/// Metric of the pool `test`.
fn pool_metric(handle: &PrometheusHandle, metric: &str) -> String {
    value(handle, &format!(r#"db_client_connection_{metric}{{db_client_connection_pool_name="test"}}"#)).unwrap()
}

fn connections(handle: &PrometheusHandle, state: &str) -> String {
    let labels = format!(r#"{{db_client_connection_pool_name="test",db_client_connection_state="{state}"}}"#);
    value(handle, &format!("db_client_connection_count{labels}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn call_duration_recorded_by_outcome() {
    let (recorder, handle) = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let calls = calls();
    assert_eq!(recorded(&handle, ""), Some((0, 0.0)), "registered at zero");
    let slow = async {
        sleep(Duration::from_secs(2)).await;
        Ok::<_, TestError>("found")
    };
    assert_eq!(calls.run(FIND, LIMIT, slow).await, Ok("found"));
    assert_eq!(calls.run(FIND, LIMIT, async { Err::<(), _>(TestError::Corrupt) }).await, Err(TestError::Corrupt));
    assert_eq!(calls.run(FIND, LIMIT, pending::<Result<(), TestError>>()).await, Err(TestError::Timeout));
    assert_eq!(recorded(&handle, ""), Some((1, 2.0)));
    assert_eq!(recorded(&handle, "corrupt"), Some((1, 0.0)));
    assert_eq!(recorded(&handle, "timeout"), Some((1, 4.0)));
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_recorded_at_its_end() {
    let (recorder, handle) = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let calls = calls();
    let slow = async {
        sleep(Duration::from_secs(3)).await;
        Ok::<_, TestError>(())
    };
    {
        let mut ends = pin!(calls.run(FIND, LIMIT, slow));
        let mut hangs = pin!(calls.run(FIND, LIMIT, pending::<Result<(), TestError>>()));
        assert!(poll!(&mut ends).is_pending());
        assert!(poll!(&mut hangs).is_pending());
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(recorded(&handle, ""), Some((1, 3.0)));
    assert_eq!(recorded(&handle, "timeout"), Some((1, 4.0)));
}

#[tokio::test(start_paused = true)]
async fn panic_recorded_and_propagated_to_caller() {
    let (recorder, handle) = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let calls = calls();
    let caller = task::spawn(async move { calls.run(FIND, LIMIT, async { panic!("a bug") as Result<(), TestError> }).await });
    assert!(caller.await.unwrap_err().is_panic());
    assert_eq!(recorded(&handle, "aborted"), Some((1, 0.0)));
}

#[tokio::test(start_paused = true)]
async fn call_within_trace_has_client_span() {
    let exporter = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    let traced = async {
        let calls = calls();
        calls.run(FIND, LIMIT, async { Ok::<_, TestError>(()) }).await.unwrap();
        assert_eq!(exporter.0.lock().len(), 0, "no span outside a trace");
        let request = async {
            calls.run(FIND, LIMIT, async { Ok::<_, TestError>(()) }).await.unwrap();
            calls.run(FIND, LIMIT, pending::<Result<(), TestError>>()).await.unwrap_err();
        };
        request.instrument(info_span!("request")).await;
    };
    traced.with_subscriber(subscriber).await;

    let spans = exporter.0.lock();
    let [succeeded, failed, request] = spans.as_slice() else { panic!("{spans:?}") };
    for span in [succeeded, failed] {
        assert_eq!((span.name.as_ref(), &span.span_kind), ("find orders", &SpanKind::Client));
        assert_eq!(span.parent_span_id, request.span_context.span_id());
        for (key, expected) in [
            ("db.system.name", "postgresql"),
            ("db.namespace", "shop"),
            ("db.collection.name", "orders"),
            ("db.operation.name", "find"),
            ("db.query.summary", "find orders"),
            ("server.address", "db.internal"),
            ("server.port", "5432"),
        ] {
            assert_eq!(attribute(span, key).as_deref(), Some(expected), "{key}");
        }
    }
    assert_eq!((&succeeded.status, attribute(succeeded, "error.type")), (&Status::Unset, None));
    assert!(matches!(failed.status, Status::Error { .. }));
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("timeout"));
}

#[tokio::test(start_paused = true)]
async fn span_has_status_code_and_connection_wait() {
    let exporter = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    let (calls, pool) = (calls(), PoolMetrics::new("test", 2));
    let request = async {
        let waits = pool.clone();
        let refused = async move {
            waits.wait_begins();
            sleep(Duration::from_millis(7)).await;
            waits.wait_ends(true);
            note_status_code("23505");
            Err::<(), _>(TestError::Corrupt)
        };
        calls.run(FIND, LIMIT, refused).await.unwrap_err();
        let waits = pool.clone();
        let waiting = async move {
            waits.wait_begins();
            pending::<Result<(), TestError>>().await
        };
        calls.run(FIND, LIMIT, waiting).await.unwrap_err();
        let repeated = async {
            note_status_code("40001");
            Ok::<_, TestError>(())
        };
        calls.run(FIND, LIMIT, repeated).await.unwrap();
    };
    // The span is made under the subscriber.
    async { request.instrument(info_span!("request")).await }.with_subscriber(subscriber).await;
    let spans = exporter.0.lock();
    let found = |at: usize| ["db.response.status_code", "app.db.connection_wait_ms"].map(|key| attribute(&spans[at], key));
    assert_eq!(found(0), [Some("23505".to_owned()), Some("7".to_owned())]);
    assert_eq!(found(1), [None, Some("4000".to_owned())], "timed out in the wait");
    assert_eq!(found(2), [None, None], "the call succeeded");
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
}

#[tokio::test(start_paused = true)]
async fn pool_counts_pending_waits_and_timeouts() {
    let (recorder, handle) = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let pool = PoolMetrics::new("test", 2);
    let values =
        || ["limit", "pending_requests", "timeouts", "wait_time_count", "wait_time_sum"].map(|metric| pool_metric(&handle, metric));
    assert_eq!(values(), ["2", "0", "0", "0", "0"]);
    let [acquired, failed, timed_out] = [pool.wait(), pool.wait(), pool.wait()];
    advance(Duration::from_secs(1)).await;
    assert_eq!(values(), ["2", "3", "0", "0", "0"]);
    acquired.acquired();
    failed.failed();
    drop(timed_out);
    assert_eq!(values(), ["2", "0", "1", "1", "1"]);
}

#[tokio::test(start_paused = true)]
async fn pool_waits_end_with_their_call() {
    let (recorder, handle) = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (calls, pool) = (calls(), PoolMetrics::new("test", 2));
    let wait = |driver: PoolMetrics, acquired: Option<bool>| async move {
        driver.wait_begins();
        sleep(Duration::from_secs(1)).await;
        let Some(got) = acquired else { return pending().await };
        driver.wait_ends(got);
        Ok::<_, TestError>(())
    };
    let values = || ["pending_requests", "timeouts", "wait_time_count"].map(|metric| pool_metric(&handle, metric));
    calls.run(FIND, LIMIT, wait(pool.clone(), Some(true))).await.unwrap();
    assert_eq!(values(), ["0", "0", "1"]);
    calls.run(FIND, LIMIT, wait(pool.clone(), Some(false))).await.unwrap();
    assert_eq!(values(), ["0", "0", "1"]);
    let mut timed_out = pin!(calls.run(FIND, LIMIT, wait(pool.clone(), None)));
    assert!(poll!(&mut timed_out).is_pending());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(values(), ["1", "0", "1"]);
    assert_eq!(timed_out.await, Err(TestError::Timeout));
    assert_eq!(values(), ["0", "1", "1"]);
    wait(pool, Some(true)).await.unwrap();
    assert_eq!(values(), ["0", "1", "1"], "a wait outside a call is not measured");
}

#[tokio::test(start_paused = true)]
async fn connection_counts_as_used_until_dropped() {
    let (recorder, handle) = recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let counter = CheckoutCounter::new(PoolMetrics::new("test", 4), || 3);
    let values = || ["idle", "used"].map(|state| connections(&handle, state));
    assert_eq!(values(), ["0", "0"]);
    let first = counter.acquire(async { Ok::<_, &str>(Box::new("a connection")) }, |_| false).await.unwrap();
    let second = counter.acquire(async { Ok::<_, &str>(Box::new("another")) }, |_| false).await.unwrap();
    assert_eq!((*first, *second), ("a connection", "another"));
    assert_eq!(values(), ["1", "2"]);
    drop(first);
    assert_eq!(values(), ["2", "1"]);
    drop(second);
    assert_eq!(values(), ["3", "0"]);
    counter.acquire(async { Err::<Box<()>, _>("refused") }, |_| false).await.unwrap_err();
    counter.acquire(async { Err::<Box<()>, _>("too late") }, |error| *error == "too late").await.unwrap_err();
    assert_eq!(pool_metric(&handle, "timeouts"), "1");
}
