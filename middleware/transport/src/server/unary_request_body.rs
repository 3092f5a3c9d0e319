//! Request cardinality of unary gRPC calls: exactly one message. tonic would process the first of
//! several and silently drop the rest.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;

/// Length of the message prefix: compression flag and big-endian length ("Length-Prefixed-Message"
/// of the gRPC wire protocol).
const PREFIX_BYTES: usize = 5;

/// Returns `true` if the client reset the stream or the connection broke. The body then stays
/// pending, and hyper drops the request in the same poll, so that the call is recorded as
/// cancelled. tonic would report a missing message and answer INTERNAL to a client that has gone.
fn is_cancelled(error: &axum::Error) -> bool {
    let causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    let mut ends = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    ends.any(|error| error.is_io() || error.is_go_away() || (error.is_reset() && error.is_remote()))
}

/// Body of a unary request. Fails for no message or more than one, before the handler runs: tonic
/// reads the whole unary request first. The status code follows the gRPC status code table,
/// "request cardinality violation".
#[derive(Debug)]
pub struct UnaryRequestBody {
    body: Body,
    progress: Progress,
}

/// Read progress of the first message.
#[derive(Debug)]
enum Progress {
    Prefix { bytes: [u8; PREFIX_BYTES], count: usize },
    Message { missing: usize },
}

impl Progress {
    /// Consumes `data` and returns whether it exceeds the first message.
    fn exceeds_message(&mut self, mut data: &[u8]) -> bool {
        if let Self::Prefix { bytes, count } = self {
            let taken = data.len().min(PREFIX_BYTES - *count);
            data.copy_to_slice(&mut bytes[*count..*count + taken]);
            *count += taken;
            if *count < PREFIX_BYTES {
                return false;
            }
            let [_, length @ ..] = *bytes;
            *self = Self::Message { missing: u32::from_be_bytes(length) as usize };
        }
        let Self::Message { missing } = self else { return false };
        let exceeded = data.len() > *missing;
        *missing = missing.saturating_sub(data.len());
        exceeded
    }
}

impl UnaryRequestBody {
    /// Wraps the body of a request.
    pub fn new(body: Body) -> Self {
        Self { body, progress: Progress::Prefix { bytes: [0; PREFIX_BYTES], count: 0 } }
    }
}

impl http_body::Body for UnaryRequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(&frame, Some(Err(error)) if is_cancelled(error)) {
            return Poll::Pending;
        }
        let empty = matches!(self.progress, Progress::Prefix { count: 0, .. });
        let is_violation = match &frame {
            None => empty,
            Some(Ok(frame)) => frame.data_ref().is_some_and(|data| self.progress.exceeds_message(data)),
            Some(Err(_)) => false,
        };
        if is_violation {
            return Poll::Ready(Some(Err(Status::unimplemented("a unary call takes exactly one message").into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // An empty body must still be polled, to be rejected.
        self.body.is_end_stream() && !matches!(self.progress, Progress::Prefix { count: 0, .. })
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

    async fn read(chunks: &[&'static [u8]]) -> Result<usize, ()> {
        let chunks = stream::iter(chunks.to_vec()).map(|chunk| Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk)));
        let read = UnaryRequestBody::new(Body::from_stream(chunks)).collect().await;
        read.map(|body| body.to_bytes().len()).map_err(|error| {
            assert_eq!(error.downcast_ref::<Status>().unwrap().code(), tonic::Code::Unimplemented);
        })
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
                let read = UnaryRequestBody::new(Body::new(request.into_body())).collect().await;
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
        assert_eq!(read(&[]).await, Err(()));
        assert_eq!(read(&[b"\0\0\0\0\0\0\0\0\0\0"]).await, Err(()));
        assert_eq!(read(&[b"\0\0\0\0\x02ab", b"\0"]).await, Err(()));
    }
}
