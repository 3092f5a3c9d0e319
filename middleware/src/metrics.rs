//! Duration and outcome of every hop, named as semantic conventions 1.45 have it; recorded when the last byte was sent, or from `Drop`.
//! A stream counts until it begins. What is in flight is counted where it is, and shown when somebody looks ([`sample`]).

mod catalog;
mod http_client;
mod registries;
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
    body::{End, BodyObserver, InstrumentedBody},
    response_outcome::{ResponseOutcome, Role},
    context::Context,
    counter::AtomicCounter,
    grpc_status,
    method_table::MethodTable,
    respond::Protocol,
    streams::is_stream,
    trace::known_verb,
};

pub use catalog::{CATALOG, Kind, Metric, describe};
pub(crate) use http_client::{HttpAttemptSeries, HttpClientSeries};
pub use registries::with_service;
pub(crate) use registries::{Registries, propagate};
pub use observable::collect;
pub(crate) use observable::{register_observable_sum, register_observable};
pub(crate) use series::{AttemptSeries, HandleCache};

/// What is measured.
#[derive(Debug, Clone)]
pub enum Boundary {
    /// `http.server.request.duration` and `http.server.active_requests`.
    HttpServer,
    /// `rpc.server.call.duration`.
    GrpcServer,
    /// `rpc.client.call.duration` towards this target (`server.address`): the logical call, retries included.
    GrpcClient(Arc<str>),
    /// `http.client.request.duration` towards this target: the logical call, retries included.
    HttpClient {
        /// `server.address`.
        address: Arc<str>,
        /// `server.port`.
        port: u16,
    },
}

/// Measures a hop from the server's or the client's side.
///
/// ```
/// use palisade_middleware::metrics::{Hop, MetricsLayer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
/// # metrics::with_local_recorder(&recorder, || tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>(http::Response::new("done".to_owned())));
/// let answer = MetricsLayer::new(Hop::HttpServer).layer(handler).oneshot(http::Request::new(())).await.unwrap();
/// drop(answer); // It was measured until here.
/// # }));
/// # let prometheus = recorder.handle().render();
/// assert!(prometheus.contains("http_server_request_duration"));
/// ```
#[derive(Debug, Clone)]
pub struct MetricsLayer(Arc<Series>);

impl MetricsLayer {
    /// Measures `hop`.
    pub fn new(hop: Boundary) -> Self {
        Self(Arc::new(match hop {
            Boundary::HttpServer => Series::HttpServer(HandleCache::default()),
            Boundary::GrpcServer => Series::GrpcServer(HandleCache::default()),
            Boundary::GrpcClient(target) => Series::GrpcClient(target, HandleCache::default()),
            Boundary::HttpClient { address, port } => Series::HttpClient { address, port, cache: HandleCache::default() },
        }))
    }

    /// Shows the server's series of each of `methods` at once, with what goes well and what alerts look at: a rate cannot see the first
    /// failure of a series that begins with it.
    #[must_use]
    pub fn with_preregistered_series(self, methods: &MethodTable) -> Self {
        for method in methods.methods().filter(|method| !method.infrastructure) {
            match &*self.0 {
                Series::HttpServer(known) => known.series_for(method.verb, method.path).preregister(),
                Series::GrpcServer(known) => known.series_for(method.rpc_method()).exist(),
                Series::GrpcClient(..) | Series::HttpClient { .. } => {}
            }
        }
        self
    }
}

/// What was measured before, by route and HTTP method or by gRPC method.
enum Series {
    HttpServer(HandleCache<(&'static str, &'static str), HttpSeries>),
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

/// See [`MetricsLayer`].
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
    /// The series that `request` belongs to; `None` if it is not measured.
    fn series_for<B>(&self, request: &Request<B>) -> Option<SeriesHandle> {
        let method = Context::of(request).and_then(|context| context.method);
        Some(match self {
            Self::HttpServer(_) | Self::GrpcServer(_) if method.is_some_and(|method| method.infrastructure) => return None,
            Self::HttpServer(known) => SeriesHandle::HttpServer(known.series_for(known_verb(request.method()), method.map_or("", |method| method.path))),
            Self::GrpcServer(known) => SeriesHandle::Grpc(known.series_for(method.map_or("_OTHER", |method| method.rpc_method()))),
            // Our own calls name only methods of our own contracts.
            Self::GrpcClient(target, known) => {
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

/// A request being measured.
#[derive(Debug)]
pub struct Measurement {
    series: SeriesHandle,
    started: Instant,
    outcome: ResponseOutcome,
    stream: bool,
    done: bool,
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
            // The bulkhead counts them.
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
        Self { series, started: Instant::now(), outcome, stream, done: false }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if let Some(active) = self.series.active() {
            active.decrement();
        }
        let duration = self.started.elapsed();
        match &self.series {
            SeriesHandle::HttpServer(series) => series.duration(self.outcome.http_status()).record(duration),
            SeriesHandle::HttpClient(series) => series.duration(self.outcome.http_outcome()).record(duration),
            SeriesHandle::Grpc(series) => series.duration(self.outcome.grpc_code()).record(duration),
        }
    }
}

/// A count as a gauge has it.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

fn error_type(code: Code) -> &'static str {
    if code == Code::Ok { "" } else { grpc_status::name(code) }
}

/// A hop that is not measured (`None`) is health, metrics or reflection.
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
    /// The future of [`Metrics`].
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
                // How long it goes on is no measure of ours.
                measurement.outcome.record_stream();
                measurement.finish();
            }
        }
        Poll::Ready(Ok(response.map(|body| InstrumentedBody::new(body, measurement))))
    }
}
