//! Request body buffering for replays: buffers a body that is available at once, passes a stream
//! through.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use tonic::{Status, body::Body};

use crate::streams::{RequestEnd, SignalEnd};

/// Maximum buffered body, bytes. A longer body cannot be replayed.
const MAX_BUFFERED: usize = 64 * 1024;

/// Outcome of buffering.
pub(super) enum Buffered {
    /// The bytes to replay.
    Whole(Bytes),
    /// Too long: it can be sent only once.
    TooLong,
    /// A stream, which can be sent only once and ends when its sender decides.
    Stream(RequestEnd),
}

/// Returns the body for the first attempt, and whether it can be replayed.
///
/// The message of a unary call is available at once. A stream is pending until its next message:
/// then nothing more is read, and its waker is registered only when the attempt reads on.
pub(super) fn buffer(mut body: Body) -> (Body, Buffered) {
    let mut frames = BufferedFrames::default();
    match try_buffer(&mut body, &mut frames, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(bytes)) => (replay(&bytes), Buffered::Whole(bytes)),
        Poll::Ready(None) => (Body::new(PrefixedBody { prefix: frames, rest: body }), Buffered::TooLong),
        Poll::Pending => {
            let end = RequestEnd::default();
            (Body::new(SignalEnd::new(PrefixedBody { prefix: frames, rest: body }, end.clone())), Buffered::Stream(end))
        }
    }
}

/// Creates a body of these bytes; costs a reference count.
pub(super) fn replay(bytes: &Bytes) -> Body {
    Body::new(Full::new(bytes.clone()))
}

type Item = Result<Frame<Bytes>, Status>;

/// Frames read from a body. Most often there is only the first, which needs no allocation.
#[derive(Default)]
struct BufferedFrames {
    first: Option<Item>,
    others: VecDeque<Item>,
}

impl BufferedFrames {
    fn push(&mut self, frame: Item) {
        if self.first.is_none() && self.others.is_empty() {
            self.first = Some(frame);
        } else {
            self.others.push_back(frame);
        }
    }

    fn pop(&mut self) -> Option<Item> {
        self.first.take().or_else(|| self.others.pop_front())
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }
}

/// Reads the whole body; `None` if it is too long, pending if it is not available at once. The
/// frames read are in `frames`.
fn try_buffer(body: &mut Body, frames: &mut BufferedFrames, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    let mut length = 0;
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(None) => return Poll::Ready(Some(join(frames, length))),
            Poll::Ready(Some(frame)) => {
                let data = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
                frames.push(frame);
                // An error or trailers, which no gRPC client sends, are left to the only attempt.
                let Some(data) = data else { return Poll::Ready(None) };
                length += data;
                if length > MAX_BUFFERED {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

fn join(frames: &BufferedFrames, length: usize) -> Bytes {
    let mut data = frames.first.iter().chain(&frames.others).filter_map(|frame| frame.as_ref().ok()?.data_ref());
    if frames.others.is_empty() {
        return data.next().cloned().unwrap_or_default();
    }
    let joined = data.fold(BytesMut::with_capacity(length), |mut joined, data| {
        joined.extend_from_slice(data);
        joined
    });
    joined.freeze()
}

/// The frames read from a body, followed by the rest of the body.
struct PrefixedBody {
    prefix: BufferedFrames,
    rest: Body,
}

impl http_body::Body for PrefixedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.prefix.pop() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::{BodyExt, StreamBody};
    use tokio_test::assert_ok;

    use super::*;

    fn stream(chunks: Vec<&'static [u8]>) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static {
        futures_util::stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk)))))
    }

    async fn read(body: Body) -> Bytes {
        assert_ok!(body.collect().await).to_bytes()
    }

    #[tokio::test]
    async fn available_body_can_be_replayed() {
        let (first, kept) = buffer(Body::new(StreamBody::new(stream(vec![b"ab", b"cd"]))));
        let Buffered::Whole(kept) = kept else { panic!("not buffered") };
        assert_eq!(kept, "abcd");
        assert_eq!(read(first).await, "abcd");
        assert_eq!(read(replay(&kept)).await, "abcd");
        assert!(matches!(buffer(Body::empty()).1, Buffered::Whole(bytes) if bytes.is_empty()));
    }

    #[tokio::test]
    async fn oversized_body_is_sent_once_and_complete() {
        static CHUNK: [u8; MAX_BUFFERED] = [7; MAX_BUFFERED];
        let (first, kept) = buffer(Body::new(StreamBody::new(stream(vec![&CHUNK, b"x", b"y"]))));
        assert!(matches!(kept, Buffered::TooLong));
        assert_eq!(read(first).await.len(), MAX_BUFFERED + 2);
    }

    #[tokio::test]
    async fn pending_stream_is_passed_through() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let waits = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let messages = stream(vec![b"a"]).chain(waits);
        let (first, kept) = buffer(Body::new(StreamBody::new(messages)));
        let Buffered::Stream(end) = kept else { panic!("not a stream") };
        let ended = || end.poll_ended(&Context::from_waker(Waker::noop())).is_ready();
        assert!(!ended());
        assert_ok!(sender.try_send(Ok(Frame::data(Bytes::from_static(b"b")))));
        drop(sender);
        assert_eq!(read(first).await, "ab");
        assert!(ended());
    }
}
