use metrics_exporter_prometheus::PrometheusRecorder;

use super::*;
use crate::{
    deadline::{AttemptTimeoutLayer, TotalDeadlineLayer, apply_inbound_origin},
    respond::ClientRespondLayer,
    task,
};

/// Returns the counted timeouts as `target/kind`.
fn counted(recorder: &PrometheusRecorder) -> Vec<String> {
    let shown = recorder.handle().render();
    let label = |line: &str, name: &str| line.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0.to_owned();
    let lines = shown.lines().filter(|line| line.starts_with("palisade_request_timeouts") && !line.ends_with(" 0"));
    lines.map(|line| format!("{}/{}{}", label(line, "target"), label(line, "kind"), &line[line.rfind('}').unwrap() + 1..])).collect()
}

/// A server whose handler calls a target that never responds.
async fn serve(protocol: Protocol, actor: Option<&'static str>, timeout: Option<&'static str>) -> Vec<String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let handler = service_fn(move |mut request: Request<()>| {
        let mut principal = context::Principal::on_behalf_of("alice");
        principal.actor = actor.map(str::to_owned);
        request.extensions_mut().get_mut::<context::Context>().unwrap().principal = Some(principal.into());
        apply_inbound_origin(&mut request);
        let context = context::Context::of(&request).unwrap().clone();
        let target = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Empty<Bytes>>, Rejection>>());
        let client = tower::ServiceBuilder::new()
            .layer(ClientRespondLayer(Protocol::Grpc))
            .layer(TotalDeadlineLayer { limit: Duration::from_secs(9), min_attempt: Duration::from_millis(10) })
            .layer(AttemptTimeoutLayer::new("target", Duration::from_secs(9)))
            .service(target);
        // Passes the response of the target on, as a handler does.
        context::scope(context, async move { Ok::<_, Rejection>(client.oneshot(Request::new(())).await.unwrap()) })
    });
    let mut request = Request::new(());
    request.extensions_mut().insert(context::Context::background());
    let header = if protocol == Protocol::Grpc { grpc_timeout::HEADER } else { REQUEST_TIMEOUT_HEADER };
    if let Some(timeout) = timeout {
        request.headers_mut().insert(header, HeaderValue::from_static(timeout));
    }
    drop(DeadlineLayer::new(protocol, DEFAULT, MAX).layer(handler).oneshot(request).await);
    counted(&recorder)
}

#[tokio::test(start_paused = true)]
async fn work_that_outlives_its_request_counts_its_timeouts() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    for target_answers in [false, true] {
        let target = service_fn(move |request: Request<()>| async move {
            let timeout = request.headers().get(grpc_timeout::HEADER).and_then(grpc_timeout::parse).unwrap();
            // A service ends somewhat early to answer in time.
            tokio::time::sleep(if target_answers { timeout * 49 / 50 } else { Duration::MAX }).await;
            Ok::<_, Rejection>(tonic::Status::deadline_exceeded("").into_http::<Empty<Bytes>>())
        });
        let client = tower::ServiceBuilder::new()
            .layer(TotalDeadlineLayer { limit: Duration::from_secs(9), min_attempt: Duration::from_millis(10) })
            .layer(AttemptTimeoutLayer::new("target", Duration::from_secs(9)))
            .service(target);
        let (send, result) = tokio::sync::oneshot::channel();
        let mut send = Some(send);
        let handler = service_fn(move |request: Request<()>| {
            let context = context::Context::of(&request).unwrap().clone();
            let (client, send) = (client.clone(), send.take().unwrap());
            context::scope(context, async move {
                let call = async move { send.send(client.oneshot(Request::new(())).await.is_ok()) };
                drop(task::spawn(context::outlive_request(call)));
                Ok::<_, Rejection>(Response::new(Empty::<Bytes>::new()))
            })
        });
        let mut request = Request::new(());
        request.extensions_mut().insert(context::Context::background());
        DeadlineLayer::new(Protocol::Http, Duration::from_secs(5), MAX).layer(handler).oneshot(request).await.unwrap();
        assert_eq!(result.await.unwrap(), target_answers);
    }
    assert_eq!(counted(&recorder), ["target/deadline 2"]);
}

#[tokio::test(start_paused = true)]
async fn timeout_is_counted_once_where_it_was_set() {
    for (protocol, actor, timeout, expected) in [
        // The time of a user: counted by the server that the user called.
        (Protocol::Http, None, Some("1000"), &["server/caller 1"][..]),
        (Protocol::Http, None, Some("5"), &["server/caller 1"]),
        (Protocol::Grpc, None, Some("1S"), &["server/caller 1"]),
        // A setting of this process for its calls.
        (Protocol::Http, None, None, &["target/attempt 1"]),
        (Protocol::Grpc, None, None, &["target/attempt 1"]),
        // The time of a service of ours: counted there.
        (Protocol::Grpc, Some("gateway"), Some("1S"), &[]),
    ] {
        assert_eq!(serve(protocol, actor, timeout).await, expected, "{protocol:?} {actor:?} {timeout:?}");
    }
}
