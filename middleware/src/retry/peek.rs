//! A response whose first frame was looked at: only then it is known whether there is anything but a failure in it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body with its first frame read already, or not.
    #[derive(Debug)]
    pub struct PeekedBody<B: Body> {
        // `Some(None)`: it was empty.
        first: Option<Option<Result<Frame<B::Data>, B::Error>>>,
        // `None`: it was let go.
        #[pin]
        rest: Option<B>,
    }
}

impl<B: Body> PeekedBody<B> {
    /// Not looked at.
    pub(super) fn new(body: B) -> Self {
        Self { first: None, rest: Some(body) }
    }

    /// No more than was looked at.
    pub(super) fn first_frame_only(self) -> Self {
        Self { rest: None, ..self }
    }

    /// The trailers, if that is what came first.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        match &self.first {
            Some(Some(Ok(frame))) => frame.trailers_ref(),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn trailers_mut(&mut self) -> Option<&mut HeaderMap> {
        match &mut self.first {
            Some(Some(Ok(frame))) => frame.trailers_mut(),
            _ => None,
        }
    }

    /// Whether it is known to have ended without any data.
    pub(super) fn has_ended(&self) -> bool {
        match &self.first {
            None => false,
            Some(None) => true,
            Some(Some(first)) => first.as_ref().is_ok_and(Frame::is_trailers),
        }
    }

    /// Whether it broke off before its first frame.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.first, Some(Some(Err(_))))
    }
}

impl<B: Body + Unpin> PeekedBody<B> {
    /// Waits for the first frame, of a body that was not looked at yet.
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
