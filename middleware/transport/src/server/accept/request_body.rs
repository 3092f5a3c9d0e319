//! Request body with a minimum data rate: a peer that sends slower keeps a request open for
//! nothing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

use super::{
    connection_state::ConnectionState,
    data_rate::{MinimumRate, RateCredit},
    record_connection_closed,
};
use crate::server::grpc_request_body::Progress;

/// The peer sent a request body more slowly than the minimum rate.
#[derive(Debug, thiserror::Error)]
#[error("the request body arrived too slowly")]
pub struct TooSlow;

/// Request extension that extends the minimum rate of a gRPC request body to the pauses between
/// messages. Without it only a message in transit must arrive in time, because a client may keep a
/// stream open in silence.
#[derive(Debug, Clone, Default)]
pub struct BodyPace(Arc<AtomicBool>);

impl BodyPace {
    /// Requires the minimum rate for the whole body, as for a unary call.
    pub fn apply_to_whole_body(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn applies_to_whole_body(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pin_project! {
    /// Body of a request received by [`serve`](super::serve).
    #[derive(Debug)]
    pub struct RequestBody {
        #[pin]
        body: Incoming,
        credit: RateCredit,
        // Created when the body has to be waited for.
        timer: Option<Pin<Box<Sleep>>>,
        // `None` over plain HTTP, where the whole body must arrive in time.
        messages: Option<Messages>,
        // `None` over HTTP/2, which resets a single stream.
        connection: Option<Arc<ConnectionState>>,
        too_slow: bool,
    }

    impl PinnedDrop for RequestBody {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(connection) = this.connection.as_ref().filter(|_| !*this.too_slow && !this.body.is_end_stream()) {
                connection.body_left_unread();
            }
        }
    }
}

/// Messages of a gRPC request body.
#[derive(Debug)]
struct Messages {
    progress: Progress,
    pace: BodyPace,
}

impl Messages {
    /// Whether the peer may be silent now.
    fn may_be_silent(&self) -> bool {
        !self.progress.is_within_message() && !self.pace.applies_to_whole_body()
    }
}

impl RequestBody {
    /// Wraps the body of a request, with the pace of a gRPC body and the state of an HTTP/1
    /// connection.
    pub(super) fn new(body: Incoming, rate: MinimumRate, grpc: Option<BodyPace>, http1: Option<Arc<ConnectionState>>) -> Self {
        let messages = grpc.map(|pace| Messages { progress: Progress::default(), pace });
        Self { body, credit: RateCredit::new(rate), timer: None, messages, connection: http1, too_slow: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                if this.credit.is_waiting() {
                    this.credit.transferred(data.len(), Instant::now());
                }
                if let Some(messages) = this.messages {
                    messages.progress.skip(data);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.messages.as_ref().is_some_and(Messages::may_be_silent) {
            this.credit.pause();
            return Poll::Pending;
        }
        let end = this.credit.wait(Instant::now());
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        if !std::mem::replace(this.too_slow, true) {
            record_connection_closed("slow_body");
        }
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
