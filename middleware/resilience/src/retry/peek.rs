//! A response body that can be read ahead, to see whether the response is complete. A unary
//! response is read to its trailers: a server that dies between the message and its status must not
//! turn a call that can be repeated into a failure.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Maximum data that is read ahead. A longer response is passed on as it arrives.
const MAX_HELD_BYTES: usize = 1024 * 1024;

pin_project! {
    /// A body whose frames may have been read ahead.
    #[derive(Debug)]
    pub struct PeekedBody<B: Body> {
        held: Held<Result<Frame<B::Data>, B::Error>>,
        held_bytes: usize,
        // The body ended, failed or is too long to be held.
        peeked: bool,
        ended: bool,
        // `None`: the rest was dropped.
        #[pin]
        rest: Option<B>,
    }
}

/// Queue that allocates only for more than two entries: a message and its trailers.
#[derive(Debug)]
struct Held<T> {
    first: [Option<T>; 2],
    more: VecDeque<T>,
}

impl<T> Held<T> {
    const fn new() -> Self {
        Self { first: [None, None], more: VecDeque::new() }
    }

    /// Appends an entry. None must have been taken before.
    fn push(&mut self, entry: T) {
        match self.first.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(entry),
            None => self.more.push_back(entry),
        }
    }

    fn pop(&mut self) -> Option<T> {
        self.first.iter_mut().find_map(Option::take).or_else(|| self.more.pop_front())
    }

    fn is_empty(&self) -> bool {
        self.last().is_none()
    }

    fn last(&self) -> Option<&T> {
        self.more.back().or(self.first[1].as_ref()).or(self.first[0].as_ref())
    }

    fn front_mut(&mut self) -> Option<&mut T> {
        self.first[0].as_mut()
    }
}

impl<B: Body> PeekedBody<B> {
    /// Wraps a body without reading ahead.
    pub(super) fn new(body: B) -> Self {
        Self { held: Held::new(), held_bytes: 0, peeked: false, ended: false, rest: Some(body) }
    }

    /// Drops everything that was not read ahead.
    pub(super) fn peeked_only(self) -> Self {
        Self { rest: None, ..self }
    }

    /// Returns the trailers, if they came first.
    #[cfg(any(feature = "opentelemetry", test))]
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.held.first[0].as_ref()?.as_ref().ok()?.trailers_ref()
    }

    /// Returns the trailers for modification, if they came first.
    pub(super) fn trailers_mut(&mut self) -> Option<&mut HeaderMap> {
        self.held.front_mut()?.as_mut().ok()?.trailers_mut()
    }

    /// Returns whether the body is known to have ended without data.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && self.held_bytes == 0
    }

    /// Returns whether the body failed while it was read ahead.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.held.last(), Some(Err(_)))
    }
}

impl<B: Body + Unpin> PeekedBody<B> {
    /// Reads ahead until the body has ended, failed, or is too long.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.peeked {
            let Some(rest) = &mut self.rest else { break };
            let frame = ready!(Pin::new(rest).poll_frame(cx));
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map(Buf::remaining);
            self.held_bytes += data.unwrap_or_default();
            self.peeked = data.is_none() || self.held_bytes > MAX_HELD_BYTES;
            self.ended = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
            if let Some(frame) = frame {
                self.held.push(frame);
            }
        }
        Poll::Ready(())
    }
}

impl<B: Body> Body for PeekedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        match this.held.pop() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if *this.ended => Poll::Ready(None),
            None => this.rest.as_pin_mut().map_or(Poll::Ready(None), |rest| rest.poll_frame(cx)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && (self.ended || self.rest.as_ref().is_none_or(Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        if !self.held.is_empty() {
            return SizeHint::default();
        }
        match &self.rest {
            Some(rest) if !self.ended => rest.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

    fn data(bytes: usize) -> Frame<Bytes> {
        Frame::data(Bytes::from(vec![7; bytes]))
    }

    fn body(frames: Frames) -> PeekedBody<StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, &'static str>> + Unpin>> {
        PeekedBody::new(StreamBody::new(stream::iter(frames)))
    }

    #[tokio::test]
    async fn body_is_read_to_its_trailers() {
        for messages in 0..4 {
            let mut frames: Frames = (0..messages).map(|_| Ok(data(3))).collect();
            frames.push(Ok(Frame::trailers(HeaderMap::new())));
            let mut body = body(frames);
            poll_fn(|cx| body.poll_read(cx)).await;
            assert_eq!((body.trailers().is_some(), body.has_ended()), (messages == 0, messages == 0));
            assert!(!body.is_broken() && !body.is_end_stream());
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                read += frame.unwrap().into_data().map_or(0, |data| data.len());
            }
            assert_eq!((read, body.is_end_stream()), (3 * messages, true));
        }
    }

    #[tokio::test]
    async fn failure_after_data_is_seen() {
        let mut body = body(vec![Ok(data(3)), Ok(data(3)), Err("reset")]);
        poll_fn(|cx| body.poll_read(cx)).await;
        assert!(body.is_broken() && !body.has_ended());
    }

    #[tokio::test]
    async fn long_body_is_not_held() {
        let frames = stream::iter((0..3).map(|_| Ok::<_, &str>(data(MAX_HELD_BYTES / 2 + 1)))).chain(stream::pending());
        let mut body = PeekedBody::new(StreamBody::new(frames));
        poll_fn(|cx| body.poll_read(cx)).await;
        assert!(!body.has_ended() && !body.is_broken() && body.trailers().is_none());
        for _ in 0..3 {
            body.frame().await.unwrap().unwrap();
        }
    }
}
