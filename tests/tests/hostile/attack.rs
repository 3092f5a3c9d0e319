//! Tools of the attackers: raw connections, HTTP/2 connections with a window of their choice, and
//! loops of requests that ignore every refusal.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::Request;
use palisade_tests::{HANG_TIMEOUT, client, eventually};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::timeout};

/// A running attack. Its tasks end when it is stopped or dropped.
#[derive(Debug, Default)]
pub(crate) struct Attack {
    tasks: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Attack {
    /// Runs `task` until the attack stops.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Sends a request `at_once` times, and again after each answer, whatever it is.
    pub(crate) fn repeat(&mut self, at_once: usize, request: impl Fn() -> client::Request + Clone + Send + 'static) {
        for _ in 0..at_once {
            let (request, answered, refused) = (request.clone(), self.answered.clone(), self.refused.clone());
            self.spawn(async move {
                loop {
                    if let Ok(answer) = request().attempt().await {
                        answered.fetch_add(1, Ordering::Relaxed);
                        refused.fetch_add(usize::from(matches!(answer.status.as_u16(), 429 | 503)), Ordering::Relaxed);
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    /// Waits until this number of repeated requests was answered.
    pub(crate) async fn wait_for_answers(&self, count: usize) {
        eventually(async || (self.answered.load(Ordering::Relaxed) >= count).then_some(())).await;
    }

    /// Waits until this number of repeated requests was refused, as overload or beyond a share.
    pub(crate) async fn wait_for_refusals(&self, count: usize) {
        eventually(async || (self.refused.load(Ordering::Relaxed) >= count).then_some(())).await;
    }

    /// Stops the attack. Returns the number of answers to repeated requests.
    pub(crate) async fn stop(mut self) -> usize {
        self.tasks.shutdown().await;
        self.answered.load(Ordering::Relaxed)
    }
}

/// Returns the socket address of a base URL.
pub(crate) fn address_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

/// Opens a connection and sends these bytes.
pub(crate) async fn send_raw(url: &str, bytes: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address_of(url)).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection
}

/// Opens an HTTP/2 connection whose peer may send at most `window` bytes per stream, and sends this
/// request `count` times. `end` closes each request body; otherwise it stays open. Returns once all
/// are sent; `attack` keeps the streams open.
pub(crate) async fn send_http2(attack: &mut Attack, url: &str, window: u32, (request, end): (Request<()>, bool), count: usize) {
    let connection = TcpStream::connect(address_of(url)).await.unwrap();
    let (mut sender, connection) = h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(connection).await.unwrap();
    attack.spawn(async move { drop(connection.await) });
    let mut streams = Vec::new();
    for _ in 0..count {
        sender = timeout(HANG_TIMEOUT, sender.ready()).await.unwrap().unwrap();
        streams.push(sender.send_request(request.clone(), end).unwrap());
    }
    attack.spawn(async move {
        let _open = (sender, streams);
        std::future::pending::<()>().await;
    });
}
