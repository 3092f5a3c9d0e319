//! Duration and outcome of every hop, named as semantic conventions 1.45 have it; recorded when the last byte was sent, or from `Drop`.

use std::{
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

use crate::{
    body::{End, Observe, Observed},
    context::Context,
    grpc_status,
    trace::known_verb,
};

/// What is measured.
#[derive(Debug, Clone)]
pub enum Hop {
    /// `http.server.request.duration` and `http.server.active_requests`.
    HttpServer,
    /// `rpc.server.call.duration`.
    GrpcServer,
    /// `rpc.client.call.duration` towards this target (`server.address`): the logical call, retries included.
    GrpcClient(Arc<str>),
}

/// Measures a hop from the server's or the client's side.
#[derive(Debug, Clone)]
pub struct MetricsLayer(pub Hop);

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { inner, hop: self.0.clone() }
    }
}

/// See [`MetricsLayer`].
#[derive(Debug, Clone)]
pub struct Metrics<S> {
    inner: S,
    hop: Hop,
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
        let measurement = Measurement::start(&self.hop, &request);
        ResponseFuture { inner: self.inner.call(request), measurement }
    }
}

/// A request being measured.
#[derive(Debug)]
pub struct Measurement {
    labels: Labels,
    started: Instant,
    /// HTTP status, or gRPC code as far as it is known.
    code: Option<u16>,
    done: bool,
}

#[derive(Debug)]
enum Labels {
    HttpServer { verb: &'static str, route: Option<&'static str> },
    GrpcServer { rpc_method: &'static str },
    GrpcClient { rpc_method: String, target: Arc<str> },
}

impl Measurement {
    fn start<B>(hop: &Hop, request: &Request<B>) -> Option<Self> {
        let method = Context::of(request).and_then(|context| context.method);
        let labels = match hop {
            Hop::HttpServer | Hop::GrpcServer if method.is_some_and(|method| method.quiet) => return None,
            Hop::HttpServer => {
                let verb = known_verb(request.method());
                metrics::gauge!("http.server.active_requests", "http.request.method" => verb, "url.scheme" => "http").increment(1.0);
                Labels::HttpServer { verb, route: method.map(|method| method.path) }
            }
            Hop::GrpcServer => {
                let rpc_method = method.map_or("_OTHER", |method| method.rpc_method());
                metrics::gauge!("palisade.rpc.server.active_calls", "rpc.method" => rpc_method).increment(1.0);
                Labels::GrpcServer { rpc_method }
            }
            // Our own calls name only methods of our own contracts.
            Hop::GrpcClient(target) => {
                Labels::GrpcClient { rpc_method: request.uri().path().trim_start_matches('/').to_owned(), target: target.clone() }
            }
        };
        Some(Self { labels, started: Instant::now(), code: None, done: false })
    }

    fn head<R>(&mut self, response: &Response<R>) {
        self.code = match self.labels {
            Labels::HttpServer { .. } => Some(response.status().as_u16()),
            _ => grpc_status::code_in(response.headers()).map(|code| code as u16),
        };
    }

    fn finish(&mut self, gone: bool) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let grpc_code = || match self.code {
            _ if gone => Code::Cancelled,
            Some(code) => Code::from_i32(code.into()),
            None => Code::Unknown,
        };
        match &self.labels {
            Labels::HttpServer { verb, route } => {
                metrics::gauge!("http.server.active_requests", "http.request.method" => *verb, "url.scheme" => "http").decrement(1.0);
                let status = if gone { 499 } else { self.code.unwrap_or(500) }.to_string();
                let error = if status.starts_with('5') { status.clone() } else { String::new() };
                metrics::histogram!("http.server.request.duration", "http.request.method" => *verb, "http.route" => route.unwrap_or(""),
                    "http.response.status_code" => status, "error.type" => error)
                .record(seconds);
            }
            Labels::GrpcServer { rpc_method } => {
                metrics::gauge!("palisade.rpc.server.active_calls", "rpc.method" => *rpc_method).decrement(1.0);
                let code = grpc_code();
                metrics::histogram!("rpc.server.call.duration", "rpc.system.name" => "grpc", "rpc.method" => *rpc_method,
                    "rpc.status_code" => grpc_status::name(code), "error.type" => error_type(code))
                .record(seconds);
            }
            Labels::GrpcClient { rpc_method, target } => {
                let code = grpc_code();
                metrics::histogram!("rpc.client.call.duration", "rpc.system.name" => "grpc", "rpc.method" => rpc_method.clone(),
                    "server.address" => target.to_string(), "rpc.status_code" => grpc_status::name(code), "error.type" => error_type(code))
                .record(seconds);
            }
        }
    }
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
        let grpc = !matches!(measurement.labels, Labels::HttpServer { .. });
        if let (true, End::Complete(Some(trailers))) = (grpc, end) {
            measurement.code = grpc_status::code_in(trailers).map(|code| code as u16).or(measurement.code);
        }
        let told = grpc && measurement.code.is_some();
        measurement.finish(!told && !matches!(end, End::Complete(_)));
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.finish(true);
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
            measurement.head(&response);
        }
        Poll::Ready(Ok(response.map(|body| Observed::new(body, measurement))))
    }
}

/// Names, units and meanings of the metrics of this crate.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!("http.server.request.duration", Unit::Seconds, "Duration of HTTP requests, to the last byte");
    describe_gauge!("http.server.active_requests", "HTTP requests in flight");
    describe_histogram!("rpc.server.call.duration", Unit::Seconds, "Duration of gRPC calls answered, to the trailers");
    describe_histogram!("rpc.client.call.duration", Unit::Seconds, "Duration of gRPC calls made, retries included");
    describe_gauge!("palisade.rpc.server.active_calls", "gRPC calls in flight");
    describe_counter!("palisade.panics", "Handlers that panicked");
    describe_counter!("palisade.requests.shed", "Requests refused to protect the process, by reason");
    describe_gauge!("palisade.concurrency.limit", "Requests that may be in flight");
    describe_gauge!("palisade.concurrency.in_use", "Requests in flight, answers included");
    describe_gauge!("build.info", "1, labelled with the version");
}
