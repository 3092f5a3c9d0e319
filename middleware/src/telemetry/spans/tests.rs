use std::sync::mpsc::{Receiver, Sender, channel};

use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;

use super::*;

/// Takes a batch when told to, and says that it has begun.
#[derive(Debug)]
struct Collector {
    begun: Mutex<Sender<usize>>,
    answers: Mutex<Receiver<OTelSdkResult>>,
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.begun.lock().send(batch.len()).unwrap();
        self.answers.lock().recv().unwrap()
    }
}

#[test]
fn every_span_is_exported_lost_or_dropped_and_counted_as_that() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shows = |series: &str, value: u64| {
        let (text, line) = (recorder.handle().render(), format!("{series} {value}"));
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    };
    let ((begun, has_begun), (answer, answers)) = (channel(), channel());
    let collector = Collector { begun: Mutex::new(begun), answers: Mutex::new(answers) };
    let processor = metrics::with_local_recorder(&recorder, || batches(collector, 2));
    shows("otel_sdk_exporter_span_exported{error_type=\"timeout\"}", 0);
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let span = || drop(provider.tracer("test").start("work"));

    // The collector holds two in its hands, two more wait, and the fifth has no room.
    (0..2).for_each(|_| span());
    assert_eq!(has_begun.recv().unwrap(), 2);
    (0..3).for_each(|_| span());
    shows("otel_sdk_span_started", 5);
    shows("otel_sdk_processor_span_processed{error_type=\"\"}", 4);
    shows("otel_sdk_processor_span_processed{error_type=\"queue_full\"}", 1);

    answer.send(Ok(())).unwrap();
    assert_eq!(has_begun.recv().unwrap(), 2);
    answer.send(Err(OTelSdkError::InternalFailure("gone".to_owned()))).unwrap();
    span();
    answer.send(Err(OTelSdkError::Timeout(Duration::from_secs(1)))).unwrap();
    provider.shutdown().unwrap();
    shows("otel_sdk_exporter_span_exported{error_type=\"\"}", 2);
    shows("otel_sdk_exporter_span_exported{error_type=\"failed\"}", 2);
    shows("otel_sdk_exporter_span_exported{error_type=\"timeout\"}", 1);
}
