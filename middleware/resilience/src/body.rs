//! Instrumented response body: reports to one observer how the body ended: complete, failed, timed
//! out or dropped.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http::{HeaderMap, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::BoxError;

/// Source of a timeout rejection: the other side was called and did not respond in time.
#[derive(Debug, thiserror::Error)]
#[error("no response within {0:?}")]
pub struct Elapsed(pub Duration);

/// How a body ended.
#[derive(Debug, Clone, Copy)]
pub enum End<'a> {
    /// Read to its end, with these trailers.
    Complete(Option<&'a HeaderMap>),
    /// Reading failed.
    Failed,
    /// Cut off by a timeout.
    Late,
    /// Dropped before its end: the peer is gone.
    Dropped,
}

/// Observer of a body. `end` is called exactly once; dropping the observer releases what it holds
/// (permits, spans).
pub trait BodyObserver {
    /// Guard that lives during each poll of the body, for example an entered span.
    type Entered<'a>
    where
        Self: 'a;

    /// Called before each poll.
    fn enter(&mut self) -> Self::Entered<'_>;

    /// Called for each data frame.
    fn on_data(&mut self) {}

    /// Called at the end of the body.
    fn on_end(&mut self, end: End<'_>);
}

pin_project! {
    /// A body with an observer.
    #[derive(Debug)]
    pub struct InstrumentedBody<B: Body, O: BodyObserver> {
        #[pin]
        body: B,
        observer: Option<O>,
        // Data bytes left by `content-length`.
        left: Option<u64>,
    }

    impl<B: Body, O: BodyObserver> PinnedDrop for InstrumentedBody<B, O> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // hyper does not poll a body to its end if the length is reached before.
            let complete = *this.left == Some(0) || this.body.is_end_stream();
            let end = if complete { End::Complete(None) } else { End::Dropped };
            if let Some(mut observer) = this.observer.take() {
                observer.on_end(end);
            }
        }
    }
}

impl<B: Body, O: BodyObserver> InstrumentedBody<B, O> {
    /// Attaches `observer` to the body of `response`. The body is complete after the bytes that the
    /// response declares, whether the rest is polled or not.
    pub fn observe(response: Response<B>, observer: O) -> Response<Self> {
        let declared = content_length(response.headers());
        response.map(|body| {
            let left = declared.or_else(|| body.size_hint().exact());
            Self { body, observer: Some(observer), left }
        })
    }
}

/// Returns the declared length (RFC 9110 §8.6), if there is a valid one.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns how reading failed. Bodies of any type are observed; only those that a layer can cut off
/// have a boxed error with the cause.
fn end_of_error<E: 'static>(error: &E) -> End<'static> {
    let late = (error as &dyn Any).downcast_ref::<BoxError>().is_some_and(|error| error.is::<Elapsed>());
    if late { End::Late } else { End::Failed }
}

impl<B: Body<Error: 'static>, O: BodyObserver> Body for InstrumentedBody<B, O> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = match this.observer.as_mut() {
            Some(observer) => {
                let _entered = observer.enter();
                ready!(this.body.poll_frame(cx))
            }
            None => ready!(this.body.poll_frame(cx)),
        };
        let end = match &frame {
            None => Some(End::Complete(None)),
            Some(Err(error)) => Some(end_of_error(error)),
            Some(Ok(frame)) => frame.trailers_ref().map(|trailers| End::Complete(Some(trailers))),
        };
        if let (Some(left), Some(Ok(frame))) = (this.left.as_mut(), &frame) {
            let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            *left = left.saturating_sub(length);
        }
        match end {
            None => {
                if let Some(observer) = this.observer {
                    observer.on_data();
                }
            }
            Some(end) => {
                if let Some(mut observer) = this.observer.take() {
                    observer.on_end(end);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Holds `T`, usually a permit, until the body has ended.
#[derive(Debug)]
pub struct PermitGuard<T>(pub Option<T>);

impl<T> BodyObserver for PermitGuard<T> {
    type Entered<'a>
        = ()
    where
        T: 'a;

    fn enter(&mut self) -> Self::Entered<'_> {}

    fn on_end(&mut self, _: End<'_>) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<Vec<String>>>);

    impl BodyObserver for Log {
        type Entered<'a> = ();
        fn enter(&mut self) {}
        fn on_end(&mut self, end: End<'_>) {
            self.0.borrow_mut().push(format!("{end:?}"));
        }
    }

    #[tokio::test]
    async fn observer_is_called_once_at_the_end() {
        let log = Log::default();
        let response = InstrumentedBody::observe(Response::new(Full::new(Bytes::from("x"))), log.clone());
        response.into_body().collect().await.unwrap();
        assert_eq!(*log.0.borrow(), ["Complete(None)"]);
    }

    #[tokio::test]
    async fn dropped_body_is_reported_as_dropped() {
        let log = Log::default();
        drop(InstrumentedBody::observe(Response::new(Full::new(Bytes::from("x"))), log.clone()));
        assert_eq!(*log.0.borrow(), ["Dropped"]);
    }

    #[tokio::test]
    async fn streamed_body_is_complete_at_its_declared_length() {
        for (declared, frames, end) in
            [(Some("4"), 2, "Complete(None)"), (Some("4"), 1, "Dropped"), (None, 2, "Dropped"), (Some("x"), 2, "Dropped")]
        {
            let log = Log::default();
            let parts = ["ab", "cd"].map(|part| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(part))));
            let mut response = Response::new(StreamBody::new(futures_util::StreamExt::chain(stream::iter(parts), stream::pending())));
            if let Some(declared) = declared {
                response.headers_mut().insert(header::CONTENT_LENGTH, declared.parse().unwrap());
            }
            let mut body = Box::pin(InstrumentedBody::observe(response, log.clone()).into_body());
            for _ in 0..frames {
                assert!(body.frame().await.unwrap().unwrap().is_data());
            }
            drop(body);
            assert_eq!(*log.0.borrow(), [end], "{declared:?} {frames}");
        }
    }
}
