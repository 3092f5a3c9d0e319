//! Fixture of all cases: an authenticated caller and a trivial inner service.

use std::{
    future::{Ready, ready},
    marker::PhantomData,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use palisade_middleware::{
    auth::{Issuer, UserToken, Verifier, jwks::JwksSource, keys::SigningKey, mint_user_token},
    clock::{Clock, SystemClock},
    context::{self, Context},
    method_table::{Access, Method},
};
use tokio::time::Instant;
use tonic::{GrpcMethod, body::Body};
use tower::Service;

use super::{Case, Group, Side};

const PATH: &str = "/bench.v1.Bench/Get";

pub(super) static METHODS: [Method; 1] = [Method::grpc(PATH, Access::Scope("bench:read"))];

/// Inner service that responds immediately with a successful gRPC status.
pub(super) struct Inner<E>(PhantomData<fn() -> E>);

impl<E> Clone for Inner<E> {
    fn clone(&self) -> Self {
        inner()
    }
}

pub(super) fn inner<E>() -> Inner<E> {
    Inner(PhantomData)
}

impl<E, B> Service<Request<B>> for Inner<E> {
    type Response = Response<Body>;
    type Error = E;
    type Future = Ready<Result<Response<Body>, E>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\0"))));
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("0"));
        ready(Ok(response))
    }
}

/// Caller with a verified token.
pub(super) struct Caller {
    pub(super) verifier: Arc<Verifier>,
    pub(super) token: String,
    context: Context,
}

impl Caller {
    pub(super) fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let key = signing_key();
        let keys = JwksSource::fixed(vec![key.trusted().expect("the key has an id")]);
        let issuer = Issuer::of_users("bench", "bench", keys);
        let token = UserToken {
            subject: "alice".to_owned(),
            scope: "bench:read".to_owned(),
            issuer: "bench".to_owned(),
            audience: "bench".to_owned(),
            lifetime: Duration::from_hours(1),
        };
        let token = mint_user_token(&token, &key, clock.now().unix_timestamp()).expect("the token can be signed");
        let verifier = Arc::new(Verifier::new(vec![issuer], clock).expect("one issuer"));
        let principal = verifier.verify(&token).now_or_never().expect("keys are available").expect("the token is valid");
        let mut context = Context::background().on_behalf_of(principal).with_deadline(Instant::now() + Duration::from_hours(1));
        context.method = Some(&METHODS[0]);
        Self { verifier, token, context }
    }

    pub(super) fn request(&self, side: Side) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\0"))));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static(PATH);
        if side == Side::Client {
            // Headers and extensions of a generated client.
            request.headers_mut().insert(header::TE, http::HeaderValue::from_static("trailers"));
            request.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
            request.extensions_mut().insert(GrpcMethod::new("bench.v1.Bench", "Get"));
            return request;
        }
        let token = http::HeaderValue::try_from(format!("Bearer {}", self.token)).expect("the token is ASCII");
        request.headers_mut().insert(header::AUTHORIZATION, token);
        request.headers_mut().insert(header::HOST, http::HeaderValue::from_static("bench"));
        request.extensions_mut().insert(self.context.clone());
        request
    }
}

impl Caller {
    pub(super) fn case<S, R>(self: &Arc<Self>, name: &'static str, group: Group, mut service: S) -> Case
    where
        S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug> + 'static,
        R: http_body::Body,
    {
        let caller = self.clone();
        let (Group::Baseline(side) | Group::Layer(side) | Group::Stack(side)) = group else {
            unreachable!("a component takes no requests")
        };
        let run_once = move || match side {
            Side::Server => drive(&mut service, caller.request(side)),
            Side::Client => {
                // Client calls usually run on behalf of an incoming request.
                let call = context::scope(caller.context.clone(), async { drive(&mut service, caller.request(side)) });
                call.now_or_never().expect("the call never waits");
            }
        };
        Case { name, group, run_once: Box::new(run_once) }
    }
}

pub(super) fn signing_key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().expect("random numbers are available")).expect("the generated key is valid PEM")
}

/// Calls `service` once and reads the whole response.
fn drive<S, R>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
    R: http_body::Body,
{
    let response = service.call(request).now_or_never().expect("the call never waits").expect("the call is not rejected");
    let body = response.into_body().collect().now_or_never().expect("the body is ready");
    assert!(body.is_ok(), "the body is complete");
}
