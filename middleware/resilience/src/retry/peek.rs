//! A response body whose first frame can be read ahead, to see whether it contains anything but a
//! failure.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body whose first frame may have been read ahead.
    #[derive(Debug)]
    pub struct PeekedBody<B: Body> {
        // `Some(None)`: the body was empty.
        first: Option<Option<Result<Frame<B::Data>, B::Error>>>,
        // `None`: the rest was dropped.
        #[pin]
        rest: Option<B>,
    }
}

impl<B: Body> PeekedBody<B> {
    /// Wraps a body without reading ahead.
    pub(super) fn new(body: B) -> Self {
        Self { first: None, rest: Some(body) }
    }

    /// Drops everything but the first frame.
    pub(super) fn first_frame_only(self) -> Self {
        Self { rest: None, ..self }
    }

    /// Returns the trailers, if they came first.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        match &self.first {
            Some(Some(Ok(frame))) => frame.trailers_ref(),
            _ => None,
        }
    }

    /// Returns the trailers for modification, if they came first.
    pub(super) fn trailers_mut(&mut self) -> Option<&mut HeaderMap> {
        match &mut self.first {
            Some(Some(Ok(frame))) => frame.trailers_mut(),
            _ => None,
        }
    }

    /// Returns whether the body is known to have ended without data.
    pub(super) fn has_ended(&self) -> bool {
        match &self.first {
            None => false,
            Some(None) => true,
            Some(Some(first)) => first.as_ref().is_ok_and(Frame::is_trailers),
        }
    }

    /// Returns whether the body failed before its first frame.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.first, Some(Some(Err(_))))
    }
}

impl<B: Body + Unpin> PeekedBody<B> {
    /// Waits for the first frame; must be called only until it is ready.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            self.first = Some(ready!(Pin::new(rest).poll_frame(cx)));
        }
        Poll::Ready(())
    }
}

impl<B: Body> Body for PeekedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        match this.first.take() {
            Some(frame) => Poll::Ready(frame),
            None => this.rest.as_pin_mut().map_or(Poll::Ready(None), |rest| rest.poll_frame(cx)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.first {
            None => self.rest.as_ref().is_none_or(Body::is_end_stream),
            Some(None) => true,
            Some(Some(_)) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.first {
            Some(Some(_)) => SizeHint::default(),
            _ => self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint),
        }
    }
}
