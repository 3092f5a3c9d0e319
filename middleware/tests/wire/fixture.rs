//! Test fixture of the wire tests: a small service behind the full stack, on a port or an in-memory
//! pipe, with a record of the executed requests.

use std::{collections::HashSet, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, Method as Verb, StatusCode, header};
use hyper_util::rt::TokioIo;
use palisade_middleware::{
    auth::Verifier,
    caller::Peer,
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    rejection::{Rejection, reasons},
    respond::Protocol,
    server::{
        self, Config,
        accept::{self, Connections},
    },
    task,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Test timeout: far longer than the expected event takes, far shorter than any server timeout.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) const BIG_BYTES: usize = 16 * 1024 * 1024;

static METHODS: [Method; 10] = [
    Method::http("GET", "/", Access::Public),
    Method::http("POST", "/echo", Access::Public),
    Method::http("POST", "/limited", Access::Public),
    Method::http("GET", "/big", Access::Public),
    Method::http("GET", "/held", Access::Public),
    Method::http("GET", "/peer", Access::Public),
    Method::http("GET", "/upgrade", Access::Public),
    Method::grpc("/test.Test/Call", Access::Public),
    Method::grpc("/test.Test/Held", Access::Public),
    Method::grpc("/test.Test/Read", Access::Public).request_stream(),
];

/// Record of the executed requests, and gates for held ones.
#[derive(Debug)]
pub(crate) struct App {
    /// `METHOD path body-length` of each request that a handler received completely.
    pub(crate) executed: Mutex<Vec<String>>,
    /// Peer addresses of the calls.
    pub(crate) callers: Mutex<HashSet<SocketAddr>>,
    /// One permit per started request to a `held` path.
    pub(crate) started: Semaphore,
    /// One permit per `held` request that may finish.
    pub(crate) release: Semaphore,
}

impl App {
    fn new() -> Arc<Self> {
        Arc::new(Self { executed: Mutex::default(), callers: Mutex::default(), started: Semaphore::new(0), release: Semaphore::new(0) })
    }

    pub(crate) fn take_executed(&self) -> Vec<String> {
        std::mem::take(&mut self.executed.lock())
    }

    /// Waits until `count` requests to a `held` path have started.
    pub(crate) async fn held(&self, count: u32) {
        timeout(TEST_TIMEOUT, self.started.acquire_many(count)).await.expect("held requests start in time").unwrap().forget();
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(async |State(app): State<Arc<App>>, verb: Verb, body: Bytes| record(&app, &verb, "/", &body)))
        .route("/echo", post(async |State(app): State<Arc<App>>, verb: Verb, body: Bytes| record(&app, &verb, "/echo", &body)))
        .route("/limited", post(limited))
        .route("/big", get(async || Bytes::from(vec![b'x'; BIG_BYTES])))
        .route("/held", get(held))
        .route("/peer", get(async |Extension(peer): Extension<Peer>| peer.0.to_string()))
        .route("/upgrade", get(upgrade))
        .route("/test.Test/Call", post(call))
        .route("/test.Test/Held", post(async |state: State<Arc<App>>| (held(state).await, ok_response()).1))
        .route("/test.Test/Read", post(async |body: Bytes| body.len().to_string()))
        .with_state(app)
}

async fn call(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>) -> axum::response::Response {
    app.callers.lock().insert(peer.0);
    ok_response()
}

/// Successful gRPC call without a message.
fn ok_response() -> axum::response::Response {
    tonic::Status::ok("").into_http()
}

fn record(app: &App, verb: &Verb, path: &str, body: &Bytes) -> &'static str {
    app.executed.lock().push(format!("{verb} {path} {}", body.len()));
    "ok"
}

/// Rejects by the declared length, before it reads the body.
async fn limited(headers: HeaderMap, body: Body) -> axum::response::Response {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > 10) {
        return Rejection::new(&reasons::BODY_TOO_LARGE, "at most 10 bytes").into_response();
    }
    axum::body::to_bytes(body, 10).await.unwrap();
    "ok".into_response()
}

/// Switches to a protocol that echoes every byte.
async fn upgrade(mut request: Request) -> impl IntoResponse {
    let upgrading = hyper::upgrade::on(&mut request);
    task::spawn(async move {
        let mut io = TokioIo::new(upgrading.await.unwrap());
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = io.read(&mut buffer).await {
            io.write_all(&buffer[..count]).await.unwrap();
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")])
}

async fn held(State(app): State<Arc<App>>) -> &'static str {
    app.started.add_permits(1);
    app.release.acquire().await.unwrap().forget();
    "ok"
}

/// Builds the stack around the service.
macro_rules! stack {
    ($protocol:expr, $app:expr, $config:expr) => {{
        let table = Arc::new(MethodTable::new(&[&METHODS]).unwrap());
        let verifier = Arc::new(Verifier::new(Vec::new(), Arc::new(SystemClock)).unwrap());
        server::stack($protocol, router($app), table, verifier, Faults::disabled(), $config)
    }};
}

/// Server on its own port.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) app: Arc<App>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(protocol: Protocol, config: Config) -> Self {
        let listener = accept::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (address, app, shutdown) = (listener.local_addr().unwrap(), App::new(), CancellationToken::new());
        let (stack, stop) = (stack!(protocol, app.clone(), &config), shutdown.clone());
        let serving = task::spawn(async move { accept::serve(listener, protocol, stack, &config, stop).await });
        Self { address, app, shutdown, serving }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `sent` and returns the received bytes until the server closes the connection.
    pub(crate) async fn exchange(&self, sent: &[u8]) -> String {
        let mut stream = self.connect().await;
        let (mut read, mut write) = stream.split();
        let mut received = Vec::new();
        // A rejecting server closes before it has read everything, so that writing and reading may
        // both fail.
        let exchange = async { tokio::join!(write.write_all(sent), read.read_to_end(&mut received)) };
        let closed = timeout(TEST_TIMEOUT, exchange).await.is_ok();
        let text = String::from_utf8_lossy(&received).into_owned();
        assert!(closed, "not closed after {:?}: {text}", String::from_utf8_lossy(&sent[..sent.len().min(300)]));
        text
    }

    /// Whether a new connection is served.
    pub(crate) async fn is_serving(&self) -> bool {
        self.exchange(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.starts_with("HTTP/1.1 200")
    }
}

/// Client end of an in-memory connection, for tests with a paused clock.
pub(crate) struct MemoryConnection {
    pub(crate) client: DuplexStream,
    pub(crate) app: Arc<App>,
    closed: oneshot::Receiver<Infallible>,
}

impl MemoryConnection {
    pub(crate) fn open(protocol: Protocol, config: &Config) -> Self {
        Self::open_around(protocol, config, config)
    }

    /// Opens a connection to a service with its own limits.
    pub(crate) fn open_around(protocol: Protocol, config: &Config, service: &Config) -> Self {
        let ((client, io), (permit, closed), app) = (duplex(64 * 1024), oneshot::channel(), App::new());
        let stack = stack!(protocol, app.clone(), service);
        Arc::new(Connections::new("memory", protocol, config, None)).open(stack, (io, SocketAddr::from(([192, 0, 2, 1], 1))), permit);
        Self { client, app, closed }
    }

    /// Waits until the server has dropped the connection.
    pub(crate) async fn closed(&mut self) {
        (&mut self.closed).await.unwrap_err();
    }
}

/// Statuses of all HTTP/1 responses in `text`.
pub(crate) fn statuses(text: &str) -> Vec<u16> {
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}
