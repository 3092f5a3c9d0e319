//! Retries in traces.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::{in_memory_exporter::Kept, protocol::Protocol, trace::ClientTraceLayer};

#[tokio::test(start_paused = true)]
async fn span_has_an_event_for_each_retry() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    let server = Server::answering(|attempt| match attempt {
        1 => connection_failure(true),
        2 => status(Code::Unavailable),
        _ => status(Code::Ok),
    });
    let call = async {
        let layer = ClientTraceLayer { protocol: Protocol::Grpc, server_address: "products".into(), server_port: None };
        let service = service_fn(async |request: Request<Body>| server.call(request).await);
        let answer = layer.layer(service).call(get()).await.unwrap();
        answer.into_body().collect().await.unwrap();
    };
    call.with_subscriber(subscriber).await;

    let spans = kept.0.lock();
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    let events = span.events.iter().filter(|event| event.name == "retry").map(|event| {
        let value = |key: &str| event.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string()).unwrap();
        [value("app.rpc.attempt"), value("app.rpc.outcome"), value("rpc.status_code")]
    });
    // The first request was never sent and is sent again as the same attempt.
    assert_eq!(
        events.collect::<Vec<_>>(),
        [["1", "unsent", "UNAVAILABLE"], ["1", "failed", "UNAVAILABLE"]].map(|event| event.map(str::to_owned))
    );
    let attempts = span.attributes.iter().find(|pair| pair.key.as_str() == "app.rpc.attempts").map(|pair| pair.value.clone());
    assert_eq!((attempts, &span.status), (Some(2_i64.into()), &opentelemetry::trace::Status::Unset), "it recovered");
}
