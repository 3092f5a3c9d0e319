//! Request body of a gRPC call: bounds the size of each message, and requires exactly one message
//! in a unary call. tonic would answer a large message with `OUT_OF_RANGE`, process the first of
//! several messages and silently drop the rest.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;

use palisade_resilience::{
    prefetched_body::TooLarge,
    rejection::{Rejection, chain, reasons},
};

/// Length of the message prefix: compression flag and big-endian length ("Length-Prefixed-Message"
/// of the gRPC wire protocol).
const PREFIX_BYTES: usize = 5;

/// Returns `true` if the client reset the stream or the connection broke. The body then stays
/// pending, and hyper drops the request in the same poll, so that the call is recorded as
/// cancelled. tonic would report a missing message and answer INTERNAL to a client that has gone.
fn is_cancelled(error: &axum::Error) -> bool {
    let mut ends = chain(error).filter_map(|cause| cause.downcast_ref::<h2::Error>());
    ends.any(|error| error.is_io() || error.is_go_away() || (error.is_reset() && error.is_remote()))
}

/// Whether the server has stopped receiving the body because of its size.
fn is_too_large(error: &axum::Error) -> bool {
    chain(error).any(<dyn std::error::Error>::is::<TooLarge>)
}

/// Body of a gRPC request. Fails before the handler gets the offending message: tonic reads a whole
/// message first, and the whole request in a unary call. The status code of a wrong number of
/// messages follows the gRPC status code table, "request cardinality violation".
#[derive(Debug)]
pub struct GrpcRequestBody {
    body: Body,
    limits: Limits,
    progress: Progress,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Maximum size of a message, bytes.
    message_bytes: usize,
    unary: bool,
}

/// Violation of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Violation {
    Cardinality,
    MessageTooLarge,
}

/// Read progress through length-prefixed messages.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Complete or begun messages.
    messages: usize,
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix read so far; full while the message is read.
    prefix_count: usize,
    /// Missing bytes of the current message.
    missing: usize,
}

impl Progress {
    /// Consumes `data`.
    fn consume(&mut self, mut data: &[u8], limits: Limits) -> Result<(), Violation> {
        while !data.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(data.len());
                data.advance(taken);
                self.missing -= taken;
                continue;
            }
            if self.prefix_count == 0 && self.messages > 0 && limits.unary {
                return Err(Violation::Cardinality);
            }
            let taken = data.len().min(PREFIX_BYTES - self.prefix_count);
            data.copy_to_slice(&mut self.prefix[self.prefix_count..self.prefix_count + taken]);
            self.prefix_count += taken;
            if self.prefix_count < PREFIX_BYTES {
                continue;
            }
            let [_, length @ ..] = self.prefix;
            self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            self.prefix_count = 0;
            self.messages += 1;
            if self.missing > limits.message_bytes {
                return Err(Violation::MessageTooLarge);
            }
        }
        Ok(())
    }

    /// Consumes `data` without limits.
    pub(super) fn skip(&mut self, data: &[u8]) {
        // Cannot fail without limits.
        let _ = self.consume(data, Limits { message_bytes: usize::MAX, unary: false });
    }

    /// Returns whether a message has begun and is incomplete.
    pub(super) fn is_within_message(&self) -> bool {
        self.missing > 0 || self.prefix_count > 0
    }

    fn is_empty(&self) -> bool {
        self.messages == 0 && self.prefix_count == 0
    }
}

impl GrpcRequestBody {
    /// Wraps the body of a unary request, whose message has at most `message_bytes`.
    pub fn unary(body: Body, message_bytes: usize) -> Self {
        Self { body, limits: Limits { message_bytes, unary: true }, progress: Progress::default() }
    }

    /// Wraps the body of a streaming request, whose messages have at most `message_bytes` each.
    pub fn streaming(body: Body, message_bytes: usize) -> Self {
        Self { body, limits: Limits { message_bytes, unary: false }, progress: Progress::default() }
    }

    fn status(&self, violation: Violation) -> Status {
        match violation {
            Violation::Cardinality => Rejection::new(&reasons::UNIMPLEMENTED, "a unary call takes exactly one message").into(),
            Violation::MessageTooLarge => {
                let detail = format!("a request message has at most {} bytes", self.limits.message_bytes);
                Rejection::new(&reasons::BODY_TOO_LARGE, detail).into()
            }
        }
    }
}

impl http_body::Body for GrpcRequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(&frame, Some(Err(error)) if is_cancelled(error)) {
            return Poll::Pending;
        }
        let checked = match &frame {
            None if self.limits.unary && self.progress.is_empty() => Err(Violation::Cardinality),
            Some(Ok(frame)) => {
                let limits = self.limits;
                frame.data_ref().map_or(Ok(()), |data| self.progress.consume(data, limits))
            }
            Some(Err(error)) if is_too_large(error) => Err(Violation::MessageTooLarge),
            None | Some(Err(_)) => Ok(()),
        };
        if let Err(violation) = checked {
            return Poll::Ready(Some(Err(self.status(violation).into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // An empty body of a unary call must still be polled, to be rejected.
        self.body.is_end_stream() && !(self.limits.unary && self.progress.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use hyper::{body::Incoming, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use super::*;

    type Connection = tokio::task::JoinHandle<Result<(), h2::Error>>;

    const LIMIT: usize = 4;

    async fn read_with(wrap: fn(Body, usize) -> GrpcRequestBody, chunks: &[&'static [u8]]) -> Result<usize, tonic::Code> {
        let chunks = stream::iter(chunks.to_vec()).map(|chunk| Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk)));
        let read = wrap(Body::from_stream(chunks), LIMIT).collect().await;
        read.map(|body| body.to_bytes().len()).map_err(|error| error.downcast_ref::<Status>().unwrap().code())
    }

    async fn read(chunks: &[&'static [u8]]) -> Result<usize, tonic::Code> {
        read_with(GrpcRequestBody::unary, chunks).await
    }

    #[tokio::test]
    async fn message_over_the_limit_is_rejected_with_error_info() {
        let (at_limit, over_limit) = (b"\0\0\0\0\x04abcd", b"\0\0\0\0\x05");
        for wrap in [GrpcRequestBody::unary, GrpcRequestBody::streaming] {
            assert_eq!(read_with(wrap, &[at_limit]).await, Ok(9));
            assert_eq!(read_with(wrap, &[over_limit]).await, Err(tonic::Code::ResourceExhausted));
            assert_eq!(read_with(wrap, &[b"\0\xff\xff", b"\xff\xff"]).await, Err(tonic::Code::ResourceExhausted));
        }
        assert_eq!(read_with(GrpcRequestBody::streaming, &[at_limit, over_limit]).await, Err(tonic::Code::ResourceExhausted));
        assert_eq!(read_with(GrpcRequestBody::streaming, &[at_limit, at_limit, b"\0\0\0\0", b"\0"]).await, Ok(23));
        assert_eq!(read_with(GrpcRequestBody::streaming, &[]).await, Ok(0));
        for (violation, reason) in [(Violation::MessageTooLarge, "BODY_TOO_LARGE"), (Violation::Cardinality, "UNIMPLEMENTED")] {
            let status = GrpcRequestBody::unary(Body::empty(), LIMIT).status(violation);
            let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!((info.domain.as_str(), info.reason.as_str()), ("palisade", reason));
        }
    }

    #[tokio::test]
    async fn single_message_passes_in_any_chunks() {
        assert_eq!(read(&[b"\0\0\0\0\x02ab"]).await, Ok(7));
        assert_eq!(read(&[b"\0\0", b"\0\0\x02a", b"b"]).await, Ok(7));
        assert_eq!(read(&[b"\0\0\0\0\0"]).await, Ok(5));
        // A truncated message passes: tonic rejects it itself.
        assert_eq!(read(&[b"\0\0\0\0\x02a"]).await, Ok(6));
    }

    /// Starts a call and ends it with `disconnect` before its message is sent.
    async fn start_call_and(disconnect: impl FnOnce(h2::SendStream<Bytes>, Connection)) {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let (started, handler_started) = oneshot::channel();
        let (finished, handler_finished) = oneshot::channel();
        let once = Mutex::new(Some((started, finished)));
        let service = service_fn(move |request: Request<Incoming>| {
            let (begun, ended) = once.lock().take().unwrap();
            async move {
                begun.send(()).unwrap();
                let read = GrpcRequestBody::unary(Body::new(request.into_body()), 4_096).collect().await;
                ended.send(read.is_ok()).unwrap();
                Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
            }
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(theirs), service);
        let serving = palisade_resilience::task::spawn(serving);
        let (client, connection) = h2::client::handshake(ours).await.unwrap();
        let connection = palisade_resilience::task::spawn(connection);
        let request = Request::post("http://shop/products.v1.Products/Find").body(()).unwrap();
        let (_answer, body) = client.ready().await.unwrap().send_request(request, false).unwrap();
        handler_started.await.unwrap();
        disconnect(body, connection);
        assert!(handler_finished.await.is_err(), "the handler is dropped while it waits for its message");
        serving.abort();
    }

    #[tokio::test]
    async fn reset_stream_cancels_the_handler() {
        start_call_and(|mut body, _| body.send_reset(h2::Reason::CANCEL)).await;
    }

    #[tokio::test]
    async fn lost_connection_cancels_the_handler() {
        start_call_and(|_, connection| connection.abort()).await;
    }

    #[tokio::test]
    async fn zero_or_two_messages_are_rejected() {
        let unimplemented = Err(tonic::Code::Unimplemented);
        assert_eq!(read(&[]).await, unimplemented);
        assert_eq!(read(&[b"\0\0\0\0\0\0\0\0\0\0"]).await, unimplemented);
        assert_eq!(read(&[b"\0\0\0\0\x02ab", b"\0"]).await, unimplemented);
    }
}
