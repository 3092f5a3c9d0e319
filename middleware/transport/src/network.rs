//! Network of the process: TCP, or a simulated one that a test installs.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

static INSTALLED: OnceLock<Box<dyn Network>> = OnceLock::new();

/// Bidirectional byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Io for I {}

/// Accepted connections and their peers.
pub type Incoming = BoxStream<'static, io::Result<(Box<dyn Io>, SocketAddr)>>;

/// Replacement of TCP, for simulations.
pub trait Network: Send + Sync + fmt::Debug {
    /// Connects to a port of a host.
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;

    /// Listens on `address`, whose port is not 0.
    fn listen(&self, address: SocketAddr) -> Incoming;
}

/// A network is already installed.
#[derive(Debug, thiserror::Error)]
#[error("a network is already installed in this process")]
pub struct AlreadyInstalled;

/// Replaces TCP in the whole process, once and before the first connection.
pub fn install(network: Box<dyn Network>) -> Result<(), AlreadyInstalled> {
    INSTALLED.set(network).map_err(|_| AlreadyInstalled)
}

/// Returns the installed network, or `None` for TCP.
pub fn installed() -> Option<&'static dyn Network> {
    INSTALLED.get().map(Box::as_ref)
}

/// Connection over TCP or the installed network.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Installed(Box<dyn Io>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => tcp.fmt(f),
            Self::Installed(_) => f.write_str("Installed"),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Installed(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Installed(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Installed(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Installed(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Installed(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Installed(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
