//! Saga executor: calls products, records transitions and schedules retries as the saga decides.
//! Used by requests and by the worker.

use std::{convert::Infallible, sync::Arc, time::Duration};

use palisade_middleware::{
    clock::{self, Clock},
    planted, trace,
};
use tokio::time::Instant;
use tracing::{Span, field::Empty};

use crate::{
    metrics::{self, REVISION, SAGA, Step},
    order::{FailureReason, Order, OrderId},
    products::Products,
    saga::{ConfirmOutcome, Effect, Event, ReleaseOutcome, ReserveOutcome, ReviseOutcome, RevisionEnd, Transition},
    store::{Claimed, Error, SagaQueue, StoredResponse, TransitionResult},
};

/// Outcome: another worker or a status change by a user won the race.
const LEASE_LOST: &str = "TAKEN_OVER";
/// Outcome: the store was unavailable, so that a worker resumes the saga after the lease expires.
const STORE_UNAVAILABLE: &str = "UNRECORDED";

/// Executes the sagas of orders.
#[derive(Clone)]
pub struct SagaExecutor {
    store: Arc<dyn SagaQueue>,
    products: Products,
    clock: Arc<dyn Clock>,
    /// Duration of a lease, which is extended while the saga runs.
    lease: Duration,
}

/// Encodes the response that is stored for replays of a create request. Returns `None` while the
/// order has no final response.
pub type EncodeResponse<'a> = &'a (dyn Fn(&Order) -> Option<StoredResponse> + Send + Sync);

impl SagaExecutor {
    /// Creates an executor over `store` and `products` that extends the leases of running sagas by
    /// `lease`.
    pub fn new(store: Arc<dyn SagaQueue>, products: Products, clock: Arc<dyn Clock>, lease: Duration) -> Self {
        Self { store, products, clock, lease }
    }

    /// Runs the saga of a leased order until it is finished, the lease is lost, or a retry is
    /// scheduled. Returns the last known state of the order. After any failure a worker resumes the
    /// saga when the lease expires.
    pub async fn run(&self, claimed: Claimed, encode_response: EncodeResponse<'_>) -> Order {
        let id = claimed.saga.order.id;
        let scope = trace::start(move || saga_span(SAGA, id));
        scope.instrument(self.run_traced(claimed, encode_response)).await.order
    }

    /// Runs the pending revision of a leased order like [`Self::run`]. Returns the reason if this
    /// call ended it as refused.
    pub async fn revise(&self, claimed: Claimed) -> (Order, Option<FailureReason>) {
        let id = claimed.saga.order.id;
        let scope = trace::start(move || saga_span(REVISION, id));
        let end = scope.instrument(self.run_traced(claimed, &|_| None)).await;
        (end.order, end.refused)
    }

    /// Runs the saga of an order that a worker claimed. Starts a new trace, linked to the request
    /// that created the order. While the order only waits there is none.
    pub async fn resume(&self, claimed: Claimed) {
        let (saga, id) = (if claimed.saga.order.revision.is_some() { REVISION } else { SAGA }, claimed.saga.order.id);
        let scope = trace::start_repeated(claimed.trace_parent.as_deref(), move || saga_span(saga, id));
        scope.instrument(self.run_traced(claimed, &|_| None)).await;
    }

    async fn run_traced(&self, claimed: Claimed, encode_response: EncodeResponse<'_>) -> SagaEnd {
        let (id, fence) = (claimed.saga.order.id, claimed.fence);
        let end = tokio::select! {
            biased;
            result = self.run_until_blocked(claimed, encode_response) => result,
            never = self.keep_lease(id, fence) => match never {},
        };
        trace::record("app.saga.outcome", end.stopped.unwrap_or(end.order.status.as_str()));
        end
    }

    /// Extends the lease periodically, so that it can be short without ending during a slow call. A
    /// lost lease is noticed by the next write of the saga.
    async fn keep_lease(&self, id: OrderId, fence: i64) -> Infallible {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            let until = clock::after(self.clock.now(), self.lease);
            if let Err(error) = self.store.extend_lease(id, fence, until).await {
                tracing::debug!(order_id = %id, error = &error as &dyn std::error::Error, "cannot extend the lease");
            }
        }
    }

    async fn run_until_blocked(&self, mut claimed: Claimed, encode_response: EncodeResponse<'_>) -> SagaEnd {
        let mut event = Event::Resumed;
        loop {
            let now = self.clock.now();
            let random = random();
            let id = claimed.saga.order.id;
            let last_error = failure_reason(&event);
            event = match claimed.saga.handle(event, now, random) {
                Effect::CallReserve => Event::ReserveReturned(step(&claimed, self.products.reserve(&claimed.saga)).await),
                Effect::CallConfirm => Event::ConfirmReturned(step(&claimed, self.products.confirm(id)).await),
                Effect::CallRelease if planted!("release not sent") => Event::ReleaseReturned(ReleaseOutcome::Done),
                Effect::CallRelease => Event::ReleaseReturned(step(&claimed, self.products.release(id)).await),
                Effect::Record(transitions) => match self.record(&claimed, transitions, encode_response).await {
                    StepResult::Next(next) => {
                        claimed = *next;
                        Event::Resumed
                    }
                    StepResult::Stopped(order, reason) => return SagaEnd::new(*order, Some(reason)),
                },
                Effect::CallRevise => Event::ReviseReturned(step(&claimed, self.products.revise(&claimed.saga.order)).await),
                Effect::EndRevision(end) => return self.end_revision(claimed, end).await,
                Effect::RecordReleased => {
                    let outcome = write_outcome(id, "the release", self.store.release_done(id, claimed.fence).await);
                    return SagaEnd::new(claimed.saga.order, outcome);
                }
                Effect::RetryAt(due_at) => {
                    let outcome =
                        write_outcome(id, "the retry", self.store.postpone(id, claimed.fence, due_at, last_error.to_owned()).await);
                    return SagaEnd::new(claimed.saga.order, outcome.or(Some("PUT_OFF")));
                }
                Effect::Finished => return SagaEnd::new(claimed.saga.order, None),
            };
        }
    }

    async fn end_revision(&self, claimed: Claimed, end: RevisionEnd) -> SagaEnd {
        let order = claimed.saga.order.clone();
        match self.store.end_revision(claimed, end.clone(), self.clock.now()).await {
            Ok(TransitionResult::Applied(after)) => {
                trace::mark_changed();
                metrics::record_revision(&end);
                let refused = if let RevisionEnd::Refused(reason) = end { Some(reason) } else { None };
                SagaEnd { refused, ..SagaEnd::new(after.saga.order, None) }
            }
            Ok(TransitionResult::Fenced(order)) => SagaEnd::new(order, Some(LEASE_LOST)),
            Err(error) => {
                tracing::warn!(order_id = %order.id, error = &error as &dyn std::error::Error, "cannot record the end of the revision, a worker will resume it");
                SagaEnd::new(order, Some(STORE_UNAVAILABLE))
            }
        }
    }

    async fn record(&self, claimed: &Claimed, transitions: Vec<Transition>, encode_response: EncodeResponse<'_>) -> StepResult {
        let now = self.clock.now();
        let after = transitions.iter().fold(claimed.saga.order.clone(), |order, transition| transition.apply(order, now));
        let id = after.id;
        let response = encode_response(&after);
        let moves: Vec<_> = transitions.iter().map(|transition| (transition.from, transition.to)).collect();
        let unwritten = if planted!("acknowledged without commit") { transitions.clone() } else { Vec::new() };
        match self.store.transition(claimed.clone(), transitions, response, now).await {
            Ok(TransitionResult::Applied(next)) => {
                trace::mark_changed();
                for (from, to) in moves {
                    metrics::record_transition(from, to, &next.saga.order, now);
                }
                StepResult::Next(Box::new(next))
            }
            Ok(TransitionResult::Fenced(order)) => StepResult::Stopped(Box::new(order), LEASE_LOST),
            Err(_) if planted!("acknowledged without commit") => {
                let after = unwritten.iter().fold(claimed.clone(), |claimed, transition| claimed.after(transition, now));
                StepResult::Next(Box::new(after))
            }
            Err(error) => {
                tracing::warn!(order_id = %id, error = &error as &dyn std::error::Error, "cannot record the saga step, a worker will resume the order");
                StepResult::Stopped(Box::new(claimed.saga.order.clone()), STORE_UNAVAILABLE)
            }
        }
    }
}

fn saga_span(saga: &'static str, id: OrderId) -> Span {
    tracing::info_span!(
        "saga",
        otel.name = format!("saga {saga}"),
        app.saga = saga,
        app.saga.id = %id,
        app.order.id = %id,
        app.saga.outcome = Empty,
    )
}

/// How a run of a saga ended.
struct SagaEnd {
    /// Last known state.
    order: Order,
    /// Reason why the saga stopped before its end, if it did.
    stopped: Option<&'static str>,
    /// Reason of the revision that this run ended as refused.
    refused: Option<FailureReason>,
}

impl SagaEnd {
    fn new(order: Order, stopped: Option<&'static str>) -> Self {
        Self { order, stopped, refused: None }
    }
}

enum StepResult {
    Next(Box<Claimed>),
    Stopped(Box<Order>, &'static str),
}

async fn step<S: Step>(claimed: &Claimed, call: impl Future<Output = S>) -> S {
    let started = Instant::now();
    let attempts = i64::from(claimed.saga.attempts);
    let scope = trace::start(move || {
        tracing::info_span!(
            "step",
            otel.name = S::SPAN,
            otel.status_code = Empty,
            app.saga.step = S::NAME,
            app.saga.attempt = attempts,
            error.type = Empty,
        )
    });
    let attempt = async {
        let result = call.await;
        if !result.is_conclusive() {
            trace::record("otel.status_code", "ERROR");
            trace::record("error.type", "unanswered");
        }
        result
    };
    let result = scope.instrument(attempt).await;
    metrics::record_step(&result, started.elapsed());
    result
}

fn failure_reason(event: &Event) -> &'static str {
    match event {
        Event::ReserveReturned(ReserveOutcome::Unknown { .. }) => "reserve failed: no definite response from products",
        Event::ReserveReturned(_) => "products returned a reservation with different lines",
        Event::ConfirmReturned(ConfirmOutcome::Unknown { .. }) => "confirm failed: no definite response from products",
        Event::ReviseReturned(ReviseOutcome::Unknown { .. }) => "revision failed: no definite response from products",
        Event::ReviseReturned(_) => "products returned a revised reservation with different lines",
        Event::ReleaseReturned(ReleaseOutcome::Unknown { .. }) => "release failed: no definite response from products",
        _ => "",
    }
}

/// Logs a write that did not take effect and returns the outcome of the saga.
fn write_outcome(id: OrderId, write: &str, outcome: Result<bool, Error>) -> Option<&'static str> {
    match outcome {
        Ok(true) => None,
        Ok(false) => {
            tracing::debug!(order_id = %id, "lease lost, {write} not recorded");
            Some(LEASE_LOST)
        }
        Err(error) => {
            tracing::warn!(order_id = %id, error = &error as &dyn std::error::Error, "cannot record {write}");
            Some(STORE_UNAVAILABLE)
        }
    }
}

fn random() -> u32 {
    // Without randomness all retries coincide, which is worse but not incorrect.
    getrandom::u32().unwrap_or(u32::MAX)
}
