//! I/O of a served connection: minimum write rate, lingering close, and the time of received bytes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{
    connection_state::ConnectionState,
    data_rate::{MinimumRate, RateCredit},
    record_connection_closed,
};

/// Size of the buffer for discarded bytes.
const DISCARD_BYTES: usize = 4 * 1024;

/// Limits of a lingering close.
#[derive(Debug, Clone, Copy)]
pub(super) struct LingerLimits {
    pub(super) time: Duration,
    pub(super) bytes: u64,
}

/// I/O wrapper. Fails a write whose peer reads too slowly. After the end of the output, it reads
/// and discards what the peer still sends: closing a socket with unread bytes resets the
/// connection, and the peer loses the response that says why. `P` lives as long as the I/O object,
/// also after an upgrade.
#[derive(Debug)]
pub(super) struct ServedIo<I, P> {
    io: I,
    state: Arc<ConnectionState>,
    credit: RateCredit,
    /// Created by the first write that has to wait, which is rare. Boxed, because hyper moves its
    /// streams.
    timer: Option<Pin<Box<Sleep>>>,
    limits: LingerLimits,
    lingering: Option<Lingering>,
    _permit: P,
}

#[derive(Debug)]
struct Lingering {
    timer: Pin<Box<Sleep>>,
    left: u64,
}

impl Lingering {
    fn discarded(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }
}

impl<I, P> ServedIo<I, P> {
    pub(super) fn new(io: I, state: Arc<ConnectionState>, rate: MinimumRate, limits: LingerLimits, permit: P) -> Self {
        Self { io, state, credit: RateCredit::new(rate), timer: None, limits, lingering: None, _permit: permit }
    }

    fn check_progress<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &written {
            Poll::Ready(Ok(value)) if self.credit.is_waiting() => self.credit.transferred(bytes(value), Instant::now()),
            Poll::Ready(_) => {}
            Poll::Pending => {
                let end = self.credit.wait(Instant::now());
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
                if timer.deadline() != end {
                    timer.as_mut().reset(end);
                }
                ready!(timer.as_mut().poll(cx));
                record_connection_closed("write_stall");
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

impl<I: AsyncRead + Unpin, P: Unpin> ServedIo<I, P> {
    /// Discards input until the peer closes its side, or a limit.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limits = self.limits;
        let lingering = self.lingering.get_or_insert_with(|| Lingering { timer: Box::pin(sleep(limits.time)), left: limits.bytes });
        let mut buffer = [0; DISCARD_BYTES];
        while lingering.left > 0 && lingering.timer.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingering.discarded(buffer.filled().len());
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + Unpin, P: Unpin> AsyncRead for ServedIo<I, P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.state.received();
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin, P: Unpin> AsyncWrite for ServedIo<I, P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.check_progress(cx, written, |bytes| *bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.check_progress(cx, written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.check_progress(cx, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut_down = Pin::new(&mut self.io).poll_shutdown(cx);
            ready!(self.check_progress(cx, shut_down, |()| 0))?;
            if !self.state.should_linger() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl<I, P> Drop for ServedIo<I, P> {
    fn drop(&mut self) {
        self.state.io_closed();
    }
}
