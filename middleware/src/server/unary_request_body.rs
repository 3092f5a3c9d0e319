//! A unary call brings exactly one message: tonic would carry out the first of several and drop the rest in silence.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;

/// A message is preceded by its compression flag and its length, big-endian ("Length-Prefixed-Message" of the gRPC wire protocol).
const PREFIX_BYTES: usize = 5;

/// The caller has reset the stream, or its connection is no more. Nothing more comes, and hyper drops whoever waits for it in this very poll: the call is seen to have
/// been cancelled. tonic would take the end for that of a call without a message, and answer INTERNAL to nobody.
fn is_cancelled(error: &axum::Error) -> bool {
    let causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    let mut ends = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    ends.any(|error| error.is_io() || error.is_go_away() || (error.is_reset() && error.is_remote()))
}

/// The body of a unary request. Fails where it turns out to hold no message, or more than one, which is before the handler runs: tonic
/// reads a unary request to its end first. The code is that of the gRPC status code table for "request cardinality violation".
#[derive(Debug)]
pub(super) struct UnaryRequestBody {
    body: Body,
    progress: Progress,
}

/// How far the first message has come.
#[derive(Debug)]
enum Progress {
    Prefix { bytes: [u8; PREFIX_BYTES], count: usize },
    Message { missing: usize },
}

impl Progress {
    /// Whether anything follows the first message once `data` was read.
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
    pub(super) fn new(body: Body) -> Self {
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
            return Poll::Ready(Some(Err(Status::unimplemented("a unary call has exactly one message").into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // Of an empty body the end is still to be refused.
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
    async fn one_message_passes_however_it_is_cut() {
        assert_eq!(read(&[b"\0\0\0\0\x02ab"]).await, Ok(7));
        assert_eq!(read(&[b"\0\0", b"\0\0\x02a", b"b"]).await, Ok(7));
        assert_eq!(read(&[b"\0\0\0\0\0"]).await, Ok(5));
        // Cut short: tonic has its own words for that.
        assert_eq!(read(&[b"\0\0\0\0\x02a"]).await, Ok(6));
    }

    /// Begins a call, and ends it by `leave` before its message.
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
        let serving = crate::task::spawn(serving);
        let (client, connection) = h2::client::handshake(ours).await.unwrap();
        let connection = crate::task::spawn(connection);
        let request = Request::post("http://shop/products.v1.Products/Find").body(()).unwrap();
        let (_answer, body) = client.ready().await.unwrap().send_request(request, false).unwrap();
        handler_started.await.unwrap();
        disconnect(body, connection);
        assert!(handler_finished.await.is_err(), "the handler was dropped while it waited for its message");
        serving.abort();
    }

    #[tokio::test]
    async fn a_call_that_is_taken_back_ends_without_an_answer() {
        start_call_and(|mut body, _| body.send_reset(h2::Reason::CANCEL)).await;
    }

    #[tokio::test]
    async fn so_does_one_whose_connection_is_no_more() {
        start_call_and(|_, connection| connection.abort()).await;
    }

    #[tokio::test]
    async fn none_and_two_are_refused() {
        assert_eq!(read(&[]).await, Err(()));
        assert_eq!(read(&[b"\0\0\0\0\0\0\0\0\0\0"]).await, Err(()));
        assert_eq!(read(&[b"\0\0\0\0\x02ab", b"\0"]).await, Err(()));
    }
}
