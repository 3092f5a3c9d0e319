//! Scripted handler of a server under test.

use std::time::Duration;

use axum::{Router, extract::Request};
use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::sleep;
use tonic::{Status, body::Body};

use super::playback::{Playback, head, is_head_only, status_headers};
use crate::{
    format::{Action, Method, Step},
    stack::{Client, call},
};

/// Builds the handler of a server under test: it plays the script, or forwards the request by the
/// client under test.
pub(crate) fn router(playback: Playback, forward: Option<Client>) -> Router {
    Router::new().fallback(async move |request: Request| {
        let running = playback.log.received(request.headers());
        let method = if request.uri().path() == Method::Write.path() { Method::Write } else { Method::Read };
        let step = playback.next_step();
        sleep(Duration::from_millis(step.after_ms)).await;
        if let Some(client) = &forward
            && let Err(status) = call(client, method, None).await
        {
            running.answered();
            return status.into_http();
        }
        let response = respond(&step).await;
        running.answered();
        response
    })
}

async fn respond(step: &Step) -> Response<Body> {
    match step.action {
        Action::Hang | Action::HangAfterHead => std::future::pending().await,
        Action::Panic => std::panic::resume_unwind(Box::new("scripted panic")),
        Action::Respond | Action::Truncate | Action::Reset | Action::RefuseStream | Action::Close | Action::GoAway => {}
    }
    let head = head(step);
    if is_head_only(step) {
        let mut response = head.map(|()| Body::empty());
        response.headers_mut().extend(status_headers(step));
        return response;
    }
    let message = Frame::data(Bytes::from_static(&[0; 5]));
    let trailers = Frame::trailers(status_headers(step));
    head.map(|()| Body::new(StreamBody::new(stream::iter([message, trailers].map(Ok::<_, Status>)))))
}
