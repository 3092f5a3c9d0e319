//! Innermost service of the HTTP client stack: sends requests to one origin with reqwest.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use reqwest::{ClientBuilder, redirect, retry};
use tonic::body::Body;
use tower::Service;

use super::{HttpConfig, origin::Origin};
use crate::{
    client::{Failure, InvalidConfig},
    rejection::Rejection,
};

/// Sends each request once to one origin.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    client: reqwest::Client,
    origin: Origin,
}

impl Endpoint {
    pub(super) fn new(builder: ClientBuilder, config: &HttpConfig, origin: Origin) -> Result<Self, InvalidConfig> {
        let client = builder
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .build()
            .map_err(InvalidConfig::Client)?;
        Ok(Self { client, origin })
    }
}

impl Service<Request<Body>> for Endpoint {
    type Response = Response<reqwest::Body>;
    type Error = Rejection;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Rejection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (head, body) = request.into_parts();
        let request = self.client.request(head.method, self.origin.url(&head.uri)).headers(head.headers);
        Box::pin(async move {
            // The body is complete: [`super::HttpClient`] accepts only whole bodies.
            let body = body.collect().await.map_err(Rejection::internal)?.to_bytes();
            let response = request.body(body).send().await.map_err(to_rejection)?;
            Ok(response.into())
        })
    }
}

fn to_rejection(error: reqwest::Error) -> Rejection {
    // reqwest cannot build the request: a local error, not one of the target.
    if error.is_builder() { Rejection::internal(error.without_url()) } else { Failure::from_reqwest(error).into_rejection() }
}
