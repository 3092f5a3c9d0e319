//! Innermost service of the HTTP client stack: sends requests below one base URL with reqwest.

use std::{
    future::{Future, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use reqwest::{ClientBuilder, redirect, retry};
use tonic::body::Body;
use tower::Service;

use super::origin::Origin;
use crate::client::endpoint::from_reqwest;
use palisade_resilience::rejection::Rejection;

/// Sends each request once to one origin.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: reqwest::Client,
    origin: Origin,
}

impl Endpoint {
    /// Creates the service. Redirects are not followed, and nothing is retried: the stack does.
    pub fn new(builder: ClientBuilder, connect_timeout: Duration, origin: Origin) -> Result<Self, reqwest::Error> {
        let client = builder.connect_timeout(connect_timeout).redirect(redirect::Policy::none()).retry(retry::never()).build()?;
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
        let Some(url) = self.origin.url(&head.uri) else {
            return Box::pin(ready(Err(Rejection::internal("the path of a request leads out of the base URL"))));
        };
        let request = self.client.request(head.method, url).headers(head.headers);
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
    if error.is_builder() { Rejection::internal(error.without_url()) } else { from_reqwest(error).into_rejection() }
}
