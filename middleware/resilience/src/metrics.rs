//! Request metrics: duration and outcome of every server and client boundary, named by the
//! OpenTelemetry semantic conventions 1.45.
//!
//! Recorded after the last byte, or on `Drop`. Streams are measured until the response head.
//! In-flight counts are observable gauges, updated before each scrape ([`collect`]).

mod catalog;
mod handles;
mod http_client;
mod live_labels;
mod observable;
mod series;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::Code;
use tower::{Layer, Service};

use self::series::{GrpcSeries, HttpSeries};
use crate::{
    body::{BodyObserver, End, InstrumentedBody},
    context::Context,
    counter::AtomicCounter,
    grpc_status,
    method_table::MethodTable,
    protocol::{Protocol, known_verb},
    response_outcome::{ResponseOutcome, Role},
    scheme::Scheme,
    streams::is_stream,
};

pub use crate::service_scope::{current_service, propagate, with_service};
pub use ::metrics::Label;
pub use catalog::{CATALOG, Kind, Metric, describe};
pub use handles::{new_counter, new_gauge, new_histogram};
pub(crate) use http_client::{HttpAttemptSeries, HttpClientSeries};
pub use live_labels::{ENDPOINT_LABEL, LiveLabel, is_live};
pub(crate) use observable::register_observable;
pub use observable::{collect, register_observable_sum};
pub(crate) use series::AttemptSeries;
pub use series::HandleCache;

/// Measured boundary.
#[derive(Debug, Clone)]
pub enum Boundary {
    /// `http.server.request.duration` and `http.server.active_requests`.
    HttpServer,
    /// `rpc.server.call.duration`.
    GrpcServer,
    /// `rpc.client.call.duration` for this target (`server.address`): the logical call, including
    /// retries.
    GrpcClient(Arc<str>),
    /// `http.client.request.duration` for this target: the logical call, including retries.
    HttpClient {
        /// `server.address`.
        address: Arc<str>,
        /// `server.port`.
        port: u16,
    },
}

/// Measures requests at a server or client boundary.
///
/// ```
/// use palisade_resilience::metrics::{Boundary, MetricsLayer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
/// # metrics::with_local_recorder(&recorder, || tokio_test::block_on(async {
/// let handler = service_fn(async |_| {
///     Ok::<_, std::convert::Infallible>(http::Response::new("done".to_owned()))
/// });
/// let service = MetricsLayer::new(Boundary::HttpServer).layer(handler);
/// let response = service.oneshot(http::Request::new(())).await.unwrap();
/// drop(response); // Ends the measurement.
/// # }));
/// # let prometheus = recorder.handle().render();
/// assert!(prometheus.contains("http_server_request_duration"));
/// ```
#[derive(Debug, Clone)]
pub struct MetricsLayer(Arc<Series>);

impl MetricsLayer {
    /// Creates a layer that measures `boundary`.
    pub fn new(hop: Boundary) -> Self {
        Self(Arc::new(match hop {
            Boundary::HttpServer => Series::HttpServer(HandleCache::default()),
            Boundary::GrpcServer => Series::GrpcServer(HandleCache::default()),
            Boundary::GrpcClient(target) => Series::GrpcClient(target, HandleCache::default()),
            Boundary::HttpClient { address, port } => Series::HttpClient { address, port, cache: HandleCache::default() },
        }))
    }

    /// Registers the server series of `methods` at startup, for success and for the outcomes used
    /// by alerts: `rate()` misses the first increment of a series that starts with it. HTTP series
    /// get the `scheme` of the port.
    #[must_use]
    pub fn with_preregistered_series(self, methods: &MethodTable, scheme: Scheme) -> Self {
        for method in methods.methods().filter(|method| !method.infrastructure) {
            match &*self.0 {
                Series::HttpServer(known) => known.series_for(method.verb, method.path, scheme).preregister(),
                Series::GrpcServer(known) => known.series_for(method.rpc_method()).exist(),
                Series::GrpcClient(..) | Series::HttpClient { .. } => {}
            }
        }
        self
    }
}

/// Registered series, by route and HTTP method or by gRPC method.
enum Series {
    HttpServer(HandleCache<(&'static str, &'static str, Scheme), HttpSeries>),
    GrpcServer(HandleCache<&'static str, GrpcSeries>),
    GrpcClient(Arc<str>, HandleCache<Box<str>, GrpcSeries>),
    HttpClient { address: Arc<str>, port: u16, cache: HandleCache<&'static str, HttpClientSeries> },
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Series")
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { inner, series: self.0.clone() }
    }
}

/// Service of [`MetricsLayer`].
#[derive(Debug, Clone)]
pub struct Metrics<S> {
    inner: S,
    series: Arc<Series>,
}

impl<S, B, R> Service<Request<B>> for Metrics<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, Option<Measurement>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let stream = is_stream(&request) || Context::of(&request).is_some_and(Context::is_stream);
        let measurement = self.series.series_for(&request).map(|series| Measurement::start(series, stream));
        ResponseFuture { inner: self.inner.call(request), measurement }
    }
}

impl Series {
    /// Returns the series of `request`, or `None` if it is not measured.
    fn series_for<B>(&self, request: &Request<B>) -> Option<SeriesHandle> {
        let method = Context::method_of(request);
        Some(match self {
            Self::HttpServer(_) | Self::GrpcServer(_) if method.is_some_and(|method| method.infrastructure) => return None,
            Self::HttpServer(known) => SeriesHandle::HttpServer(known.series_for(
                known_verb(request.method()),
                method.map_or("", |method| method.path),
                Scheme::of(request),
            )),
            Self::GrpcServer(known) => SeriesHandle::Grpc(known.series_for(method.map_or("_OTHER", |method| method.rpc_method()))),
            // Bounded cardinality: outbound calls use only methods of our own contracts.
            Self::GrpcClient(target, known) => {
                #[cfg(feature = "opentelemetry")]
                crate::context::with_current(|context| context.note_upstream(target));
                let key = request.uri().path().trim_start_matches('/');
                SeriesHandle::Grpc(known.get(key, || (key.into(), GrpcSeries::client(key, target.clone()))))
            }
            Self::HttpClient { address, port, cache: known } => {
                let verb = known_verb(request.method());
                SeriesHandle::HttpClient(known.get(verb, || (verb, HttpClientSeries::for_calls(verb, address.clone(), *port))))
            }
        })
    }
}

/// Measurement of a request in flight.
#[derive(Debug)]
pub struct Measurement {
    series: SeriesHandle,
    started: Instant,
    outcome: ResponseOutcome,
    stream: bool,
    done: bool,
    /// Context of the request, for exemplars: the body may be dropped outside of it.
    #[cfg(feature = "opentelemetry")]
    context: opentelemetry::Context,
}

enum SeriesHandle {
    HttpServer(Arc<HttpSeries>),
    HttpClient(Arc<HttpClientSeries>),
    Grpc(Arc<GrpcSeries>),
}

impl fmt::Debug for SeriesHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.role())
    }
}

impl SeriesHandle {
    fn role(&self) -> Role {
        match self {
            Self::HttpServer(_) => Role::Server(Protocol::Http),
            Self::HttpClient(_) => Role::Client(Protocol::Http),
            Self::Grpc(series) => series.role(),
        }
    }

    fn active(&self) -> Option<&AtomicCounter> {
        match self {
            Self::HttpServer(series) => Some(&series.active),
            // Counted by the bulkhead.
            Self::HttpClient(_) => None,
            Self::Grpc(series) => series.active.as_deref(),
        }
    }
}

impl Measurement {
    fn start(series: SeriesHandle, stream: bool) -> Self {
        if let Some(active) = series.active() {
            active.increment();
        }
        let outcome = ResponseOutcome::pending(series.role());
        Self {
            series,
            started: Instant::now(),
            outcome,
            stream,
            done: false,
            #[cfg(feature = "opentelemetry")]
            context: opentelemetry::Context::current(),
        }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if let Some(active) = self.series.active() {
            active.decrement();
        }
        let duration = self.started.elapsed();
        #[cfg(feature = "opentelemetry")]
        let _attached = std::mem::take(&mut self.context).attach();
        match &self.series {
            SeriesHandle::HttpServer(series) => {
                series.duration(self.outcome.http_status(), self.outcome.is_caller_timeout()).record(duration);
            }
            SeriesHandle::HttpClient(series) => series.duration(self.outcome.http_outcome()).record(duration),
            SeriesHandle::Grpc(series) if self.outcome.is_caller_timeout() => series.caller_timeouts().record(duration),
            SeriesHandle::Grpc(series) => series.duration(self.outcome.grpc_code()).record(duration),
        }
    }
}

/// Converts a count to a gauge value.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn as_f64(count: usize) -> f64 {
    count as f64
}

fn error_type(code: Code) -> &'static str {
    if code == Code::Ok { "" } else { grpc_status::name(code) }
}

/// `None` for infrastructure requests (health, metrics, reflection), which are not measured.
impl BodyObserver for Option<Measurement> {
    type Entered<'a> = ();

    fn enter(&mut self) {}

    fn on_end(&mut self, end: End<'_>) {
        let Some(measurement) = self else { return };
        measurement.outcome.record_end(end);
        measurement.finish();
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.finish();
    }
}

pin_project! {
    /// Future of [`Metrics`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        measurement: Option<Measurement>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, Option<Measurement>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let mut measurement = this.measurement.take();
        if let Some(measurement) = &mut measurement {
            measurement.outcome.record_head(&response);
            if measurement.stream {
                // The duration of a stream depends on its reader, so only the time to the head is
                // recorded.
                measurement.outcome.record_stream();
                measurement.finish();
            }
        }
        Poll::Ready(Ok(InstrumentedBody::observe(response, measurement)))
    }
}
