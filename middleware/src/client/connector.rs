//! TCP and TLS connections to one upstream, with a pause after a failed one: tonic tries again at every call.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::Instant};
use tower::Service;

use super::Connection;
use crate::{
    jitter::{self, Draw},
    tls,
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The last attempt failed a moment ago; the next is made after this long.
    #[error("the last connection attempt failed, the next is in {0:?}")]
    BackingOff(Duration),
    /// No answer to the handshakes of TCP and TLS in time.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The name did not resolve, nobody listens, or it is not who it should be.
    #[error("no connection")]
    Failed(#[from] io::Error),
}

/// When the next connection may be tried: pure, takes `now`.
#[derive(Debug)]
struct BackOff {
    /// After the first failure in a row.
    base: Duration,
    max: Duration,
    failures: u32,
    not_before: Option<Instant>,
    draw: Draw,
}

impl BackOff {
    /// Whether to try now; if not, how long to wait.
    fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.not_before {
            Some(at) if at > now => Err(at - now),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, now: Instant) {
        let pause = self.base.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + jitter::around(pause, 0.2, self.draw));
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

/// The pauses of one connector, shared by its clones and by whoever would rather go elsewhere meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Pause(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Spares whoever asks the lock as long as all is well.
    failing: AtomicBool,
    back_off: Mutex<BackOff>,
}

impl Pause {
    fn new(base: Duration, max: Duration) -> Self {
        let back_off = BackOff { base, max, failures: 0, not_before: None, draw: jitter::draw };
        Self(Arc::new(Shared { failing: AtomicBool::new(false), back_off: Mutex::new(back_off) }))
    }

    /// Whether a call that needs a new connection would fail at once.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.0.failing.load(Ordering::Acquire) && self.0.back_off.lock().check(now).is_err()
    }

    fn check(&self, now: Instant) -> Result<(), Duration> {
        self.0.back_off.lock().check(now)
    }

    fn failed(&self, now: Instant) {
        self.0.back_off.lock().failed(now);
        self.0.failing.store(true, Ordering::Release);
    }

    fn succeeded(&self) {
        self.0.back_off.lock().succeeded();
        self.0.failing.store(false, Ordering::Release);
    }
}

/// How all addresses of an upstream are connected to.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// For the handshakes of TCP and TLS together.
    pub(super) timeout: Duration,
    /// `None`: in plain text.
    pub(super) tls: Option<tls::Connector>,
    pub(super) kept: Connection,
}

impl Way {
    #[cfg(test)]
    pub(super) fn plain(timeout: Duration) -> Self {
        Self { timeout, tls: None, kept: Connection::default() }
    }

    /// A connection to the host and port of `uri`, however long it takes.
    pub(super) async fn to(&self, uri: &Uri) -> io::Result<tls::Stream<TcpStream>> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        // Small frames are sent as they are written; without it a call may wait 40 ms for an ACK.
        tcp.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => tls.connect(tcp).await,
            None => Ok(tls::Stream::Plain(tcp)),
        }
    }
}

/// Connects to the host and port of a URI.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    way: Way,
    pause: Pause,
}

impl Connector {
    pub(super) fn new(way: Way) -> Self {
        let pause = Pause::new(Duration::from_millis(way.kept.pause_ms), Duration::from_millis(way.kept.max_pause_ms));
        Self { way, pause }
    }

    pub(super) fn pause(&self) -> Pause {
        self.pause.clone()
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<tls::Stream<TcpStream>>, ConnectError> {
        self.pause.check(Instant::now()).map_err(ConnectError::BackingOff)?;
        let connected = match tokio::time::timeout(self.way.timeout, self.way.to(&uri)).await {
            Ok(connected) => connected.map_err(ConnectError::Failed),
            Err(_) => Err(ConnectError::TimedOut(self.way.timeout)),
        };
        match connected {
            Ok(stream) => {
                self.pause.succeeded();
                Ok(TokioIo::new(stream))
            }
            Err(error) => {
                self.pause.failed(Instant::now());
                Err(error)
            }
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<tls::Stream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_longer_after_each_failure_and_not_at_all_after_a_success() {
        let (base, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut back_off = BackOff { base, max, failures: 0, not_before: None, draw: || 0.5 };
        let now = Instant::now();
        for pause_ms in [50, 100, 200, 400, 800, 1000, 1000] {
            back_off.failed(now);
            assert_eq!(back_off.check(now), Err(Duration::from_millis(pause_ms)));
            assert_eq!(back_off.check(now + Duration::from_millis(pause_ms)), Ok(()));
        }
        back_off.succeeded();
        assert_eq!(back_off.check(now), Ok(()));
    }

    #[tokio::test]
    async fn does_not_touch_the_network_while_it_pauses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let connector = Connector::new(Way::plain(Duration::from_secs(1)));
        let pause = connector.pause();
        assert!(!pause.is_on(Instant::now()));
        assert!(matches!(connector.clone().connect(uri.clone()).await, Err(ConnectError::Failed(_))));
        assert!(pause.is_on(Instant::now()));
        assert!(matches!(connector.connect(uri).await, Err(ConnectError::BackingOff(_))));
    }
}
