//! Attempt metrics: number and duration of the attempts at one target (gRFC A66, with the same
//! series over HTTP). The `metrics` module measures logical calls.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    body::{BodyObserver, End, InstrumentedBody},
    metrics::{AttemptSeries, HandleCache, HttpAttemptSeries, HttpClientSeries},
    protocol::{Protocol, known_verb},
    rejection::Rejection,
    response_outcome::{ResponseOutcome, Role},
    retry,
    streams::is_stream,
};

/// Measures each attempt until the last byte of its response body.
///
/// ```
/// use palisade_resilience::{
///     attempt_metrics::AttemptMetricsLayer, rejection::Rejection, protocol::Protocol,
/// };
/// # use tonic::{Status, body::Body};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
/// # metrics::with_local_recorder(&recorder, || tokio_test::block_on(async {
/// let call = service_fn(async |_| {
///     Ok::<_, Rejection>(Status::unavailable("down").into_http::<Body>())
/// });
/// let attempts = AttemptMetricsLayer::new(Protocol::Grpc, "products").layer(call);
/// let response = attempts.oneshot(http::Request::new(())).await.unwrap();
/// drop(response); // The measurement ends with the body.
/// # }));
/// # let prometheus = recorder.handle().render();
/// assert!(prometheus.contains("grpc_client_attempt_duration"));
/// ```
#[derive(Debug, Clone)]
pub struct AttemptMetricsLayer(Arc<Series>);

#[derive(Debug)]
enum Series {
    Grpc { target: &'static str, handles: HandleCache<Box<str>, AttemptSeries> },
    Http(HttpAttemptSeries),
}

impl AttemptMetricsLayer {
    /// Creates the layer for attempts at `target`.
    pub fn new(protocol: Protocol, target: &'static str) -> Self {
        Self(Arc::new(match protocol {
            Protocol::Grpc => Series::Grpc { target, handles: HandleCache::default() },
            Protocol::Http => Series::Http(HttpAttemptSeries::new(target)),
        }))
    }

    fn start<B>(&self, request: &Request<B>) -> Measurement {
        let is_first = request.extensions().get::<retry::Attempt>().is_none();
        let (series, protocol) = match &*self.0 {
            Series::Grpc { target, handles: known } => {
                // The label is bounded: outgoing calls use only methods of the generated clients.
                let method = request.uri().path().trim_start_matches('/');
                let series = known.get(method, || (method.into(), AttemptSeries::new(method, target)));
                let started = if is_first { &series.original } else { &series.retry };
                started.increment(1);
                (Measured::Grpc(series), Protocol::Grpc)
            }
            Series::Http(attempts) => (Measured::Http(attempts.series_for(known_verb(request.method()), is_first)), Protocol::Http),
        };
        let outcome = ResponseOutcome::pending(Role::Client(protocol));
        Measurement { series, started: Some(Instant::now()), outcome, stream: is_stream(request) }
    }
}

impl<S> Layer<S> for AttemptMetricsLayer {
    type Service = AttemptMetrics<S>;

    fn layer(&self, inner: S) -> AttemptMetrics<S> {
        AttemptMetrics { inner, layer: self.clone() }
    }
}

/// Service of [`AttemptMetricsLayer`].
#[derive(Debug, Clone)]
pub struct AttemptMetrics<S> {
    inner: S,
    layer: AttemptMetricsLayer,
}

impl<S, B, R> Service<Request<B>> for AttemptMetrics<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Rejection>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, Measurement>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let measurement = self.layer.start(&request);
        ResponseFuture { inner: self.inner.call(request), measurement: Some(measurement) }
    }
}

/// Measurement of one attempt. Dropped before the end, it records a cancellation.
#[derive(Debug)]
pub struct Measurement {
    series: Measured,
    /// `None` after the duration was recorded.
    started: Option<Instant>,
    outcome: ResponseOutcome,
    stream: bool,
}

#[derive(Debug)]
enum Measured {
    Grpc(Arc<AttemptSeries>),
    Http(Arc<HttpClientSeries>),
}

impl Measurement {
    fn finish(&mut self) {
        let Some(started) = self.started.take() else { return };
        match &self.series {
            Measured::Grpc(series) => series.duration(self.outcome.grpc_code()).record(started.elapsed()),
            Measured::Http(series) => series.duration(self.outcome.http_outcome()).record(started.elapsed()),
        }
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.finish();
    }
}

impl BodyObserver for Measurement {
    type Entered<'a> = ();

    fn enter(&mut self) {}

    fn on_end(&mut self, end: End<'_>) {
        self.outcome.record_end(end);
    }
}

pin_project! {
    /// Response future of [`AttemptMetrics`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        measurement: Option<Measurement>,
    }
}

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, Rejection>>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, Measurement>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut measurement = this.measurement.take().expect("future polled after completion");
        match &result {
            Ok(response) => {
                measurement.outcome.record_head(response);
                if measurement.stream {
                    measurement.outcome.record_stream();
                    measurement.finish();
                }
            }
            Err(rejection) => measurement.outcome.record_rejection(rejection),
        }
        Poll::Ready(result.map(|response| InstrumentedBody::observe(response, measurement)))
    }
}
