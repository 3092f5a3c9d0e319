//! Network in memory: hosts by name, connections as byte streams. A connection needs no I/O of the
//! operating system, so that a paused clock only advances when nothing is left to do.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use http::Uri;
use hyper_util::rt::TokioIo;
use palisade_middleware::network::{Incoming, Io, Network};
use parking_lot::Mutex;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use crate::observed::Log;

/// Bytes in flight of a connection in each direction.
const BUFFER: usize = 64 * 1024;
/// Address of the client under test.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

static HOSTS: Mutex<BTreeMap<String, mpsc::UnboundedSender<Accepted>>> = Mutex::new(BTreeMap::new());
static NAMES: AtomicUsize = AtomicUsize::new(0);

/// An accepted connection and the address of its peer.
pub type Accepted = (DuplexStream, SocketAddr);

/// Returns a host name that no other scenario uses.
pub(crate) fn unique_host(name: &str) -> String {
    format!("{name}-{}.test", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Returns the URL of a host.
pub(crate) fn url(host: &str) -> String {
    format!("http://{host}:80")
}

/// Accepts the connections to one host. The host refuses connections once it is dropped.
#[derive(Debug)]
pub struct Listener {
    host: String,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    log: Option<Log>,
}

impl Listener {
    /// Listens, and counts the accepted connections in `log`.
    pub(crate) fn bind(host: &str, log: Option<Log>) -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        HOSTS.lock().insert(host.to_owned(), sender);
        Self { host: host.to_owned(), accepted, log }
    }
}

impl Stream for Listener {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = ready!(self.accepted.poll_recv(cx));
        if let (Some(_), Some(log)) = (&accepted, &self.log) {
            log.connected();
        }
        Poll::Ready(accepted.map(Ok))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        HOSTS.lock().remove(&self.host);
    }
}

/// Connects to a host from an address.
pub(crate) fn connect(host: &str, from: IpAddr) -> io::Result<DuplexStream> {
    let (near, far) = duplex(BUFFER);
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let sender = HOSTS.lock().get(host).cloned().ok_or_else(refused)?;
    sender.send((far, SocketAddr::new(from, 50_000))).map_err(|_| refused())?;
    Ok(near)
}

/// Connects a tonic `Endpoint` to the host of its URI.
///
/// # Errors
///
/// If the host refuses the connection.
pub fn connect_uri(uri: &Uri) -> io::Result<TokioIo<DuplexStream>> {
    connect(uri.host().unwrap_or_default(), CLIENT).map(TokioIo::new)
}

/// The network of the clients of palisade-transport.
#[derive(Debug)]
pub(crate) struct InMemory;

impl Network for InMemory {
    fn connect(&self, host: String, _port: u16) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        async move { Ok(Box::new(connect(&host, CLIENT)?) as Box<dyn Io>) }.boxed()
    }

    /// Servers are served from a [`Listener`].
    fn listen(&self, _: SocketAddr) -> Incoming {
        stream::empty().boxed()
    }
}
