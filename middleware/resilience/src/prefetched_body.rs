//! Prefetched body: the part of a body that is available without waiting, usually all of it.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

/// Maximum number of frames that are read ahead, so that a body that is always ready ends.
const MAX_FRAMES: usize = 64;

/// A body larger than the server receives before a handler runs.
#[derive(Debug, thiserror::Error)]
#[error("the body is longer than {0} bytes")]
pub struct TooLarge(pub usize);

/// Body whose available part was read ahead. Its frames, trailers and error are passed on
/// unchanged.
pub struct PrefetchedBody<B: Body> {
    frames: VecDeque<Result<Frame<B::Data>, BoxError>>,
    /// Bytes in `frames`.
    bytes: usize,
    data_frames: usize,
    has_trailers: bool,
    /// The part that was not available; `None` if the body is complete.
    rest: Option<B>,
}

// Frames are moved, never pinned.
impl<B: Body + Unpin> Unpin for PrefetchedBody<B> {}

impl<B: Body> fmt::Debug for PrefetchedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefetchedBody").field("frames", &self.frames.len()).field("complete", &self.is_complete()).finish_non_exhaustive()
    }
}

impl<B> PrefetchedBody<B>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    /// Wraps `body` without reading it.
    pub fn new(body: B) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, data_frames: 0, has_trailers: false, rest: Some(body) }
    }

    /// Reads on until the body is complete, failed or not available, or exceeds `max_bytes`. Ready
    /// unless the body has to be waited for.
    pub fn poll_prefetch(&mut self, max_bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(body) = &mut self.rest {
            if body.is_end_stream() {
                self.rest = None;
                break;
            }
            if self.bytes > max_bytes || self.frames.len() >= MAX_FRAMES {
                break;
            }
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Poll::Pending };
            match frame {
                None => self.rest = None,
                Some(Ok(frame)) => self.push(frame),
                Some(Err(error)) => self.fail(error.into()),
            }
        }
        Poll::Ready(())
    }

    /// Adds a frame that was read.
    fn push(&mut self, frame: Frame<B::Data>) {
        if let Some(data) = frame.data_ref() {
            self.bytes += data.remaining();
            self.data_frames += 1;
        }
        self.has_trailers |= frame.is_trailers();
        self.frames.push_back(Ok(frame));
    }

    /// Replaces the part that was not read by an error.
    pub fn fail(&mut self, error: BoxError) {
        self.rest = None;
        self.frames.push_back(Err(error));
    }
}

impl<B> PrefetchedBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    /// Like [`Self::poll_prefetch`], and joins the frames as they arrive: any number of small
    /// frames takes only the memory of their bytes.
    pub fn poll_receive(&mut self, max_bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let read = self.poll_prefetch(max_bytes, cx);
            let joined = self.frames.len() >= MAX_FRAMES && self.join_frames();
            if !joined || read.is_pending() || self.bytes > max_bytes {
                return read;
            }
        }
    }

    /// Joins the data frames, and returns whether there were any to join. Frames in front keep
    /// their size once they are large, so that no byte is copied often.
    fn join_frames(&mut self) -> bool {
        let large = self.frames.iter().take_while(|frame| frame.as_ref().is_ok_and(is_large)).count();
        let mut joined = BytesMut::new();
        let mut rest = VecDeque::new();
        let before = self.frames.len();
        for frame in self.frames.drain(large..) {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => joined.extend_from_slice(&data),
                Ok(Err(other)) => rest.push_back(Ok(other)),
                Err(error) => rest.push_back(Err(error)),
            }
        }
        if !joined.is_empty() {
            self.frames.push_back(Ok(Frame::data(joined.freeze())));
        }
        self.frames.append(&mut rest);
        self.frames.len() < before
    }
}

/// Whether a data frame is not worth joining to another.
fn is_large(frame: &Frame<Bytes>) -> bool {
    const LARGE: usize = 8_192;
    frame.data_ref().is_some_and(|data| data.len() >= LARGE)
}

impl<B: Body> PrefetchedBody<B> {
    /// Returns whether nothing is left to read.
    pub fn is_complete(&self) -> bool {
        self.rest.is_none()
    }

    /// Returns whether reading failed.
    pub fn has_failed(&self) -> bool {
        self.frames.back().is_some_and(Result::is_err)
    }

    /// Returns the number of bytes read so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of data frames read so far.
    pub fn data_frames(&self) -> usize {
        self.data_frames
    }

    /// Returns the trailers, if they were read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.back()?.as_ref().ok()?.trailers_ref()
    }
}

impl<B> Body for PrefetchedBody<B>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Some(frame) = self.frames.pop_front() {
            if let Ok(frame) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.bytes -= data.remaining();
            }
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            None => Poll::Ready(None),
            Some(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.bytes as u64;
        let Some(rest) = &self.rest else {
            // A length would hide trailers and errors after the data.
            let mut hint = if self.has_trailers || self.has_failed() { SizeHint::new() } else { SizeHint::with_exact(read) };
            if hint.exact().is_none() {
                hint.set_lower(read);
            }
            return hint;
        };
        let mut hint = rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + read);
        }
        hint.set_lower(hint.lower() + read);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::Waker};

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Frames = Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>;

    fn body(frames: Vec<Result<Frame<Bytes>, BoxError>>, ends: bool) -> StreamBody<Frames> {
        let frames = stream::iter(frames);
        StreamBody::new(if ends { Box::pin(frames) } else { Box::pin(frames.chain(stream::pending())) })
    }

    #[expect(clippy::unnecessary_wraps, reason = "frame of a body that can fail")]
    fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn prefetched<B: Body<Error: Into<BoxError>> + Unpin>(body: B, max: usize) -> (PrefetchedBody<B>, bool) {
        let mut body = PrefetchedBody::new(body);
        let ready = body.poll_prefetch(max, &mut Context::from_waker(Waker::noop())).is_ready();
        (body, ready)
    }

    #[tokio::test]
    async fn whole_body_is_complete_with_its_length() {
        let (body, ready) = prefetched(Full::new(Bytes::from("abc")), 1);
        assert!(ready && body.is_complete());
        assert_eq!((body.size_hint().exact(), body.data_frames()), (Some(3), 1));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        let (empty, _) = prefetched(Full::new(Bytes::new()), 1);
        assert!(empty.is_end_stream() && empty.size_hint().exact() == Some(0));
    }

    #[tokio::test]
    async fn trailers_follow_the_data() {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
        let (body, _) = prefetched(body(vec![data("ab"), Ok(Frame::trailers(trailers.clone()))], true), 100);
        assert!(body.is_complete() && body.trailers() == Some(&trailers));
        assert_eq!((body.size_hint().exact(), body.size_hint().lower()), (None, 2));
        assert_eq!(body.collect().await.unwrap().trailers(), Some(&trailers));
    }

    #[tokio::test]
    async fn waiting_body_passes_on_in_order() {
        let (mut body, ready) = prefetched(body(vec![data("ab"), data("c")], false), 100);
        assert!(!ready && !body.is_complete() && body.size_hint().lower() == 3);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "c");
        assert!(futures_util::poll!(body.frame()).is_pending());
    }

    #[tokio::test]
    async fn small_frames_of_a_request_are_joined() {
        let frames = (0..20_000).map(|_| data("x")).chain((0..40).map(|_| Ok(Frame::data(Bytes::from(vec![b'y'; 4_096])))));
        let mut body = PrefetchedBody::new(StreamBody::new(stream::iter(frames)));
        assert!(std::future::poll_fn(|cx| Poll::Ready(body.poll_receive(usize::MAX, cx))).await.is_ready());
        assert!(body.is_complete() && body.frames.len() < MAX_FRAMES, "{body:?}");
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!((bytes.len(), bytes[19_999], bytes[20_000]), (20_000 + 40 * 4_096, b'x', b'y'));
    }

    #[tokio::test]
    async fn prefetch_stops_above_its_maximum() {
        let endless = StreamBody::new(stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("abcd")))));
        let (endless, ready) = prefetched(endless, 10);
        assert_eq!((ready, endless.bytes(), endless.is_complete()), (true, 12, false));
        let (slim, _) = prefetched(StreamBody::new(stream::repeat_with(|| data("x"))), usize::MAX);
        assert_eq!(slim.bytes(), MAX_FRAMES);
    }

    #[tokio::test]
    async fn error_follows_the_data() {
        let (mut body, ready) = prefetched(body(vec![data("ab"), Err("broken".into())], false), 100);
        assert!(ready && body.is_complete() && body.has_failed());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "broken");
        assert!(body.frame().await.is_none());
    }
}
