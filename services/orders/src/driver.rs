//! Carries out what the saga decides: asks products, records, puts off. The same for a request and for the worker.

use std::sync::Arc;

use palisade_middleware::clock::Clock;
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    metrics::{self, Step},
    order::{Order, OrderId},
    products::Products,
    saga::{Confirm, Effect, Event, Release, Reserve, Transition},
    store::{Answer, Claimed, Store, Transitioned},
};

/// Takes orders as far as they go.
#[derive(Clone)]
pub struct Driver {
    store: Arc<dyn Store>,
    products: Products,
    clock: Arc<dyn Clock>,
}

/// Makes the answer that is kept for replays, once an order has come to one.
pub type MakeAnswer<'a> = &'a (dyn Fn(&Order) -> Option<Answer> + Send + Sync);

impl Driver {
    /// A driver over `store` and `products`.
    pub fn new(store: Arc<dyn Store>, products: Products, clock: Arc<dyn Clock>) -> Self {
        Self { store, products, clock }
    }

    /// Works on an order that is leased to the caller until it is finished, somebody else has it, or it has to wait.
    /// Answers how it stood last. Whatever fails on the way is taken up again by a worker when the lease is over.
    pub async fn run(&self, claimed: Claimed, answer: MakeAnswer<'_>) -> Order {
        let span =
            palisade_middleware::recorded_span!("saga create_order", app.saga = "create_order", app.order.id = %claimed.saga.order.id);
        self.steps(claimed, answer).instrument(span).await
    }

    async fn steps(&self, mut claimed: Claimed, answer: MakeAnswer<'_>) -> Order {
        let mut event = Event::Resumed;
        loop {
            let now = self.clock.now();
            let random = random();
            let id = claimed.saga.order.id;
            let last_error = unanswered(&event);
            event = match claimed.saga.on(event, now, random) {
                Effect::CallReserve => Event::ReserveAnswered(step(self.products.reserve(&claimed.saga.order)).await),
                Effect::CallConfirm => Event::ConfirmAnswered(step(self.products.confirm(id)).await),
                Effect::CallRelease => Event::ReleaseAnswered(step(self.products.release(id)).await),
                Effect::Record(transition) => match self.record(&claimed, transition, answer).await {
                    Recorded::Next(next) => {
                        claimed = *next;
                        Event::Resumed
                    }
                    Recorded::Over(order) => return *order,
                },
                Effect::RecordReleased => {
                    log(id, "the release", self.store.release_done(id, claimed.fence).await);
                    return claimed.saga.order;
                }
                Effect::RetryAt(due_at) => {
                    log(id, "the next try", self.store.postpone(id, claimed.fence, due_at, last_error).await);
                    return claimed.saga.order;
                }
                Effect::Finished => return claimed.saga.order,
            };
        }
    }

    async fn record(&self, claimed: &Claimed, transition: Transition, answer: MakeAnswer<'_>) -> Recorded {
        let now = self.clock.now();
        let after = transition.apply(claimed.saga.order.clone(), now);
        let (id, from, to) = (after.id, claimed.saga.order.status, after.status);
        let answer = answer(&after);
        match self.store.transition(claimed, transition, answer, now).await {
            Ok(Transitioned::Applied(next)) => {
                metrics::order_moved(from, to);
                Recorded::Next(Box::new(next))
            }
            Ok(Transitioned::Fenced(order)) => Recorded::Over(Box::new(order)),
            Err(error) => {
                tracing::warn!(order_id = %id, error = &error as &dyn std::error::Error, "a step could not be recorded, a worker takes the order up");
                Recorded::Over(Box::new(claimed.saga.order.clone()))
            }
        }
    }
}

enum Recorded {
    Next(Box<Claimed>),
    Over(Box<Order>),
}

async fn step<S: Step>(call: impl Future<Output = S>) -> S {
    let started = Instant::now();
    let answer = call.instrument(palisade_middleware::recorded_span!("step", otel.name = S::NAME, app.saga.step = S::NAME)).await;
    metrics::step_answered(&answer, started.elapsed());
    answer
}

fn unanswered(event: &Event) -> &'static str {
    match event {
        Event::ReserveAnswered(Reserve::Unknown { .. }) => "products did not answer the reserve",
        Event::ReserveAnswered(_) => "products answered the reserve with another order's lines",
        Event::ConfirmAnswered(Confirm::Unknown { .. }) => "products did not answer the confirm",
        Event::ReleaseAnswered(Release::Unknown { .. }) => "products did not answer the release",
        _ => "",
    }
}

fn log(id: OrderId, what: &str, outcome: Result<bool, crate::store::Error>) {
    match outcome {
        Ok(true) => {}
        Ok(false) => tracing::debug!(order_id = %id, "somebody else has the order, {what} is theirs to record"),
        Err(error) => tracing::warn!(order_id = %id, error = &error as &dyn std::error::Error, "{what} could not be recorded"),
    }
}

fn random() -> u32 {
    // Without randomness many would come back together: worse, not wrong.
    getrandom::u32().unwrap_or(u32::MAX)
}
