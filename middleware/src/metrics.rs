//! Duration and outcome of every hop, named as semantic conventions 1.45 have it; recorded when the last byte was sent, or from `Drop`.
//! A stream counts until it begins. What is in flight is counted where it is, and shown when somebody looks ([`sample`]).

mod catalog;
mod made;
mod registries;
mod sampled;
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
    body::{End, Observe, Observed},
    conclusion::{Conclusion, Side},
    context::Context,
    count::Count,
    grpc_status,
    method_table::MethodTable,
    respond::Protocol,
    streams::is_stream,
    trace::known_verb,
};

pub use catalog::{CATALOG, Kind, Metric, describe};
pub(crate) use made::{AttemptsMade, MadeSeries};
pub use registries::within;
pub(crate) use registries::{Registries, keep};
pub use sampled::sample;
pub(crate) use sampled::{count_on_look, on_look};
pub(crate) use series::{AttemptSeries, Known};

/// What is measured.
#[derive(Debug, Clone)]
pub enum Hop {
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
    pub fn new(hop: Hop) -> Self {
        Self(Arc::new(match hop {
            Hop::HttpServer => Series::HttpServer(Known::default()),
            Hop::GrpcServer => Series::GrpcServer(Known::default()),
            Hop::GrpcClient(target) => Series::GrpcClient(target, Known::default()),
            Hop::HttpClient { address, port } => Series::HttpClient { address, port, known: Known::default() },
        }))
    }

    /// Shows the server's series of each of `methods` at once, with what goes well and what alerts look at: a rate cannot see the first
    /// failure of a series that begins with it.
    #[must_use]
    pub fn from_the_start(self, methods: &MethodTable) -> Self {
        for method in methods.methods().filter(|method| !method.quiet) {
            match &*self.0 {
                Series::HttpServer(known) => known.of(method.verb, method.path).exist(),
                Series::GrpcServer(known) => known.of(method.rpc_method()).exist(),
                Series::GrpcClient(..) | Series::HttpClient { .. } => {}
            }
        }
        self
    }
}

/// What was measured before, by route and HTTP method or by gRPC method.
enum Series {
    HttpServer(Known<(&'static str, &'static str), HttpSeries>),
    GrpcServer(Known<&'static str, GrpcSeries>),
    GrpcClient(Arc<str>, Known<Box<str>, GrpcSeries>),
    HttpClient { address: Arc<str>, port: u16, known: Known<&'static str, MadeSeries> },
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
    type Response = Response<Observed<R, Option<Measurement>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let stream = is_stream(&request) || Context::of(&request).is_some_and(Context::is_stream);
        let measurement = self.series.of(&request).map(|series| Measurement::start(series, stream));
        ResponseFuture { inner: self.inner.call(request), measurement }
    }
}

impl Series {
    /// The series that `request` belongs to; `None` if it is not measured.
    fn of<B>(&self, request: &Request<B>) -> Option<Measured> {
        let method = Context::of(request).and_then(|context| context.method);
        Some(match self {
            Self::HttpServer(_) | Self::GrpcServer(_) if method.is_some_and(|method| method.quiet) => return None,
            Self::HttpServer(known) => Measured::Http(known.of(known_verb(request.method()), method.map_or("", |method| method.path))),
            Self::GrpcServer(known) => Measured::Grpc(known.of(method.map_or("_OTHER", |method| method.rpc_method()))),
            // Our own calls name only methods of our own contracts.
            Self::GrpcClient(target, known) => {
                let key = request.uri().path().trim_start_matches('/');
                Measured::Grpc(known.get(key, || (key.into(), GrpcSeries::made(key, target.clone()))))
            }
            Self::HttpClient { address, port, known } => {
                let verb = known_verb(request.method());
                Measured::HttpMade(known.get(verb, || (verb, MadeSeries::calls(verb, address.clone(), *port))))
            }
        })
    }
}

/// A request being measured.
#[derive(Debug)]
pub struct Measurement {
    series: Measured,
    started: Instant,
    conclusion: Conclusion,
    stream: bool,
    done: bool,
}

enum Measured {
    Http(Arc<HttpSeries>),
    HttpMade(Arc<MadeSeries>),
    Grpc(Arc<GrpcSeries>),
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.side())
    }
}

impl Measured {
    fn side(&self) -> Side {
        match self {
            Self::Http(_) => Side::Server(Protocol::Http),
            Self::HttpMade(_) => Side::Client(Protocol::Http),
            Self::Grpc(series) => series.side(),
        }
    }

    fn active(&self) -> Option<&Count> {
        match self {
            Self::Http(series) => Some(&series.active),
            // The bulkhead counts them.
            Self::HttpMade(_) => None,
            Self::Grpc(series) => series.active.as_deref(),
        }
    }
}

impl Measurement {
    fn start(series: Measured, stream: bool) -> Self {
        if let Some(active) = series.active() {
            active.enter();
        }
        let conclusion = Conclusion::open(series.side());
        Self { series, started: Instant::now(), conclusion, stream, done: false }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if let Some(active) = self.series.active() {
            active.leave();
        }
        let duration = self.started.elapsed();
        match &self.series {
            Measured::Http(series) => series.duration(self.conclusion.status()).record(duration),
            Measured::HttpMade(series) => series.duration(self.conclusion.http_outcome()).record(duration),
            Measured::Grpc(series) => series.duration(self.conclusion.code()).record(duration),
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
impl Observe for Option<Measurement> {
    type Entered<'a> = ();

    fn enter(&mut self) {}

    fn end(&mut self, end: End<'_>) {
        let Some(measurement) = self else { return };
        measurement.conclusion.end(end);
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
    type Output = Result<Response<Observed<R, Option<Measurement>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let mut measurement = this.measurement.take();
        if let Some(measurement) = &mut measurement {
            measurement.conclusion.head(&response);
            if measurement.stream {
                // How long it goes on is no measure of ours.
                measurement.conclusion.stream();
                measurement.finish();
            }
        }
        Poll::Ready(Ok(response.map(|body| Observed::new(body, measurement))))
    }
}
