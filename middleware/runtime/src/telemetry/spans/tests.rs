use std::sync::mpsc::{Receiver, Sender, channel};

use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;

use super::*;

/// Exporter that reports each batch and waits for its result.
#[derive(Debug)]
struct FakeCollector {
    batches: Mutex<Sender<usize>>,
    results: Mutex<Receiver<OTelSdkResult>>,
}

impl SpanExporter for FakeCollector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.batches.lock().send(batch.len()).unwrap();
        self.results.lock().recv().unwrap()
    }
}

#[test]
fn spans_counted_as_exported_lost_or_dropped() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let assert_value = |series: &str, value: u64| {
        let (text, line) = (recorder.handle().render(), format!("{series} {value}"));
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    };
    let ((batch_sender, batch_receiver), (result_sender, results)) = (channel(), channel());
    let collector = FakeCollector { batches: Mutex::new(batch_sender), results: Mutex::new(results) };
    let processor = metrics::with_local_recorder(&recorder, || batch_processor(collector, 2));
    assert_value("otel_sdk_exporter_span_exported{error_type=\"timeout\"}", 0);
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let span = || drop(provider.tracer("test").start("work"));

    // The collector holds two spans, two more are queued, and the fifth is dropped.
    (0..2).for_each(|_| span());
    assert_eq!(batch_receiver.recv().unwrap(), 2);
    (0..3).for_each(|_| span());
    assert_value("otel_sdk_span_started", 5);
    assert_value("otel_sdk_processor_span_processed{error_type=\"\"}", 4);
    assert_value("otel_sdk_processor_span_processed{error_type=\"queue_full\"}", 1);

    result_sender.send(Ok(())).unwrap();
    assert_eq!(batch_receiver.recv().unwrap(), 2);
    result_sender.send(Err(OTelSdkError::InternalFailure("gone".to_owned()))).unwrap();
    span();
    result_sender.send(Err(OTelSdkError::Timeout(Duration::from_secs(1)))).unwrap();
    provider.shutdown().unwrap();
    assert_value("otel_sdk_exporter_span_exported{error_type=\"\"}", 2);
    assert_value("otel_sdk_exporter_span_exported{error_type=\"failed\"}", 2);
    assert_value("otel_sdk_exporter_span_exported{error_type=\"timeout\"}", 1);
}
