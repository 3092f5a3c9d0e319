//! Response body that passes through or fails at once, which aborts the response.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::BoxError;

pin_project! {
    /// The body of a handler, or `None`: reading it fails before the head is sent. hyper then
    /// resets an HTTP/2 stream with INTERNAL_ERROR and closes an HTTP/1 connection.
    #[derive(Debug)]
    pub struct FaultBody<B> {
        #[pin]
        body: Option<B>,
    }
}

impl<B> FaultBody<B> {
    pub(super) fn of(body: B) -> Self {
        Self { body: Some(body) }
    }

    pub(super) fn broken() -> Self {
        Self { body: None }
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for FaultBody<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(Some(Err("aborted by fault injection".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
