//! Layers of published crates around tonic: retry with a budget, timeouts, limits and P2C of tower,
//! and the circuit breaker of recloser.

use std::{sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Full};
use recloser::{AsyncRecloser, Recloser};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body, service::Routes, transport::Endpoint};
use tower::{
    BoxError, ServiceBuilder, ServiceExt,
    limit::GlobalConcurrencyLimitLayer,
    load::{CompleteOnResponse, PeakEwma},
    load_shed::{LoadShedLayer, error::Overloaded},
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    service_fn,
    timeout::{TimeoutLayer, error::Elapsed},
    util::{BoxCloneSyncService, rng::HasherRng},
};

use super::{
    Client, Stack,
    tonic_alone::{Balanced, TonicAlone, balanced, lazy, server},
};
use crate::{
    format::{BreakerPolicy, ClientPolicy, Need, READ, ServerPolicy},
    network::Listener,
};

/// Limit of a policy that is switched off.
const UNLIMITED: usize = 1_000_000;
const UNLIMITED_TIME: Duration = Duration::from_mins(10);
/// Jitter of a backoff, as a share of it.
const JITTER: f64 = 0.5;
/// Initial latency and decay of the peak EWMA, as in the examples of tower.
const INITIAL_LATENCY: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

/// A unary response with its trailers.
type Unary = Response<Collected<Bytes>>;
type UnaryService = BoxCloneSyncService<Request<Bytes>, Unary, BoxError>;

/// tower 0.5 and recloser around tonic.
#[derive(Debug, Clone, Copy, Default)]
pub struct Published;

impl Stack for Published {
    fn name(&self) -> &'static str {
        "tower + recloser"
    }

    fn provides(&self, need: Need) -> bool {
        TonicAlone.provides(need) || matches!(need, Need::Retry | Need::RetryBudget | Need::Breaker | Need::Bulkhead)
    }

    /// recloser reads the system clock.
    fn has_own_clock(&self) -> bool {
        true
    }

    fn client(&self, urls: &[String], policy: &ClientPolicy) -> anyhow::Result<Client> {
        let connect_timeout = Duration::from_millis(policy.connect_timeout_ms);
        let channel = move |url: &str| {
            let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(connect_timeout);
            let decay_ns = DECAY.as_secs_f64() * 1e9;
            anyhow::Ok(PeakEwma::new(lazy(&endpoint), INITIAL_LATENCY, decay_ns, CompleteOnResponse::default()))
        };
        let (endpoints, set_endpoints) = balanced(urls, channel)?;
        let time = |ms: Option<u64>| ms.map_or(UNLIMITED_TIME, Duration::from_millis);
        let breaker = policy.breaker.as_ref().map(breaker);
        let stack = ServiceBuilder::new()
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(policy.max_in_flight.map_or(UNLIMITED, |limit| limit as usize)))
            .layer(TimeoutLayer::new(time(policy.call_timeout_ms)))
            .layer(RetryLayer::new(RetryPolicy::new(policy)?))
            .layer_fn(move |attempt: UnaryService| guarded(breaker.clone(), attempt))
            .layer_fn(UnaryService::new)
            .layer(TimeoutLayer::new(time(policy.attempt_timeout_ms)))
            .service(unary(endpoints));
        let stack = UnaryService::new(stack);
        let service = service_fn(move |request: Request<Body>| {
            let stack = stack.clone();
            async move {
                let (head, body) = request.into_parts();
                let message = body.collect().await?.to_bytes();
                let response = stack.oneshot(Request::from_parts(head, message)).await.map_err(status_of)?;
                Ok::<_, Status>(response.map(Body::new))
            }
        });
        Ok(Client { service: BoxCloneSyncService::new(service), set_endpoints })
    }

    fn serve(
        &self,
        listener: Listener,
        policy: &ServerPolicy,
        handler: Router,
        shutdown: CancellationToken,
    ) -> anyhow::Result<BoxFuture<'static, ()>> {
        let limit = policy.max_in_flight.map_or(UNLIMITED, |limit| limit as usize);
        let mut server = server(policy).load_shed(true).layer(GlobalConcurrencyLimitLayer::new(limit));
        let incoming = listener.map(|accepted| accepted.map(|(io, _)| io));
        let serving = server.add_routes(Routes::from(handler)).serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned());
        Ok(serving.map(drop).boxed())
    }
}

fn breaker(policy: &BreakerPolicy) -> AsyncRecloser {
    let breaker = Recloser::custom()
        .error_rate(policy_rate(policy))
        // The rate counts with the call after the last of a full window.
        .closed_len(policy.min_calls.saturating_sub(1).max(1) as usize)
        .half_open_len(policy.probes.saturating_sub(1).max(1) as usize)
        .open_wait(Duration::from_millis(policy.open_ms))
        .build();
    AsyncRecloser::from(breaker)
}

#[expect(clippy::cast_possible_truncation, reason = "a rate of the scenarios has two digits")]
fn policy_rate(policy: &BreakerPolicy) -> f32 {
    policy.failure_rate as f32
}

/// Puts the breaker around each attempt.
fn guarded(breaker: Option<AsyncRecloser>, attempt: UnaryService) -> UnaryService {
    let Some(breaker) = breaker else { return attempt };
    UnaryService::new(service_fn(move |request: Request<Bytes>| {
        let guarded = breaker.call_with(is_failure as fn(&BoxError) -> bool, attempt.clone().oneshot(request));
        async move {
            guarded.await.map_err(|error| match error {
                recloser::Error::Inner(error) => error,
                recloser::Error::Rejected => Status::unavailable("circuit open").into(),
            })
        }
    }))
}

/// Sends one attempt; an error status is an error.
fn unary(endpoints: Balanced) -> UnaryService {
    UnaryService::new(service_fn(move |request: Request<Bytes>| {
        let endpoints = endpoints.clone();
        async move {
            let response = endpoints.oneshot(request.map(|message| Body::new(Full::new(message)))).await?;
            if response.status() != StatusCode::OK {
                return Err(Status::new(code_of_http(response.status()), format!("HTTP {}", response.status())).into());
            }
            check(response.headers())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?;
            match body.trailers() {
                Some(trailers) => check(trailers)?,
                None if head.headers.contains_key("grpc-status") => {}
                None => return Err(Status::internal("response without a status").into()),
            }
            Ok::<_, BoxError>(Response::from_parts(head, body))
        }
    }))
}

/// Maps the status of a proxy (gRPC, "HTTP to gRPC status code mapping").
fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

fn check(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

fn status_of(error: BoxError) -> Status {
    if error.is::<Elapsed>() {
        Status::deadline_exceeded("timeout")
    } else if error.is::<Overloaded>() {
        Status::resource_exhausted("too many calls")
    } else {
        Status::from_error(error)
    }
}

/// Failures of the target, by the codes that the breaker of this project counts.
fn is_failure(error: &BoxError) -> bool {
    match error.downcast_ref::<Status>() {
        Some(status) => matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss),
        None => true,
    }
}

/// Retries idempotent calls that were unavailable or timed out.
#[derive(Clone)]
struct RetryPolicy {
    left: u32,
    budget: Option<Arc<TpsBudget>>,
    backoff: ExponentialBackoff,
}

impl RetryPolicy {
    fn new(policy: &ClientPolicy) -> anyhow::Result<Self> {
        let [min, max] = policy.backoff_ms.map(Duration::from_millis);
        let mut backoff = ExponentialBackoffMaker::new(min, max, JITTER, HasherRng::default())?;
        // A burst within ten seconds, and a tenth of the calls.
        let budget = policy.retry_burst.map(|burst| Arc::new(TpsBudget::new(Duration::from_secs(10), burst.div_ceil(10), 0.1)));
        Ok(Self { left: policy.attempts.saturating_sub(1), budget, backoff: backoff.make_backoff() })
    }
}

impl Policy<Request<Bytes>, Unary, BoxError> for RetryPolicy {
    type Future = <ExponentialBackoff as Backoff>::Future;

    fn retry(&mut self, request: &mut Request<Bytes>, result: &mut Result<Unary, BoxError>) -> Option<Self::Future> {
        let Err(error) = result else {
            self.budget.iter().for_each(|budget| budget.deposit());
            return None;
        };
        let is_retryable = error.downcast_ref::<Status>().map_or(error.is::<Elapsed>(), |status| status.code() == Code::Unavailable);
        if request.uri().path() != READ || !is_retryable || self.left == 0 {
            return None;
        }
        if !self.budget.as_ref().is_none_or(|budget| budget.withdraw()) {
            return None;
        }
        self.left -= 1;
        Some(self.backoff.next_backoff())
    }

    fn clone_request(&mut self, request: &Request<Bytes>) -> Option<Request<Bytes>> {
        Some(request.clone())
    }
}
