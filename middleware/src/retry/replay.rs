//! A request body that can be sent again: collected while it is at hand, passed through when it is not.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use tonic::{Status, body::Body};

/// A longer body is not kept for a second attempt.
const MAX_BUFFERED: usize = 64 * 1024;

/// The body for the first attempt, and what to send again; `None` for a body that can be sent once only.
///
/// A unary call's message is there at once. A stream makes us wait for its next message, and whatever waits is left alone: nobody is woken
/// for it until it is read on.
pub(super) fn buffer(mut body: Body) -> (Body, Option<Bytes>) {
    let mut frames = BufferedFrames::default();
    match try_buffer(&mut body, &mut frames, &mut Context::from_waker(Waker::noop())) {
        Some(bytes) => (replay(&bytes), Some(bytes)),
        None => (Body::new(PrefixedBody { prefix: frames, rest: body }), None),
    }
}

/// A body of these bytes; costs a reference count.
pub(super) fn replay(bytes: &Bytes) -> Body {
    Body::new(Full::new(bytes.clone()))
}

type Item = Result<Frame<Bytes>, Status>;

/// What was read of a body. The first frame is most often the only one, and then needs no memory of its own.
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

/// The whole body. `None` if it is too long or not all there: what was read of it is in `begun`.
fn try_buffer(body: &mut Body, frames: &mut BufferedFrames, cx: &mut Context<'_>) -> Option<Bytes> {
    let mut length = 0;
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(None) => return Some(join(frames, length)),
            Poll::Ready(Some(frame)) => {
                let data = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
                frames.push(frame);
                // An error or trailers, which no gRPC client sends, are for the one attempt to deal with.
                length += data?;
                if length > MAX_BUFFERED {
                    return None;
                }
            }
            Poll::Pending => return None,
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

/// What was read of a body, then the rest of it.
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
    async fn what_is_at_hand_can_be_sent_again() {
        let (first, kept) = buffer(Body::new(StreamBody::new(stream(vec![b"ab", b"cd"]))));
        let kept = kept.unwrap();
        assert_eq!(kept, "abcd");
        assert_eq!(read(first).await, "abcd");
        assert_eq!(read(replay(&kept)).await, "abcd");
        assert_eq!(buffer(Body::empty()).1.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_sent_once_and_whole() {
        static CHUNK: [u8; MAX_BUFFERED] = [7; MAX_BUFFERED];
        let (first, kept) = buffer(Body::new(StreamBody::new(stream(vec![&CHUNK, b"x", b"y"]))));
        assert_eq!(kept, None);
        assert_eq!(read(first).await.len(), MAX_BUFFERED + 2);
    }

    #[tokio::test]
    async fn a_stream_that_waits_is_passed_through() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let waits = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let messages = stream(vec![b"a"]).chain(waits);
        let (first, kept) = buffer(Body::new(StreamBody::new(messages)));
        assert_eq!(kept, None);
        assert_ok!(sender.try_send(Ok(Frame::data(Bytes::from_static(b"b")))));
        drop(sender);
        assert_eq!(read(first).await, "ab");
    }
}
