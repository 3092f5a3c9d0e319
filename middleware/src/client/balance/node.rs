//! One endpoint as the balancer sees it: how to reach it, how busy it is, and whether it is well.

use std::sync::Arc;

use http::Request;
use tokio::time::Instant;
use tonic::body::Body;

use super::{
    super::{
        address::Address,
        connector::Way,
        endpoint::{self, Endpoint},
    },
    ejection::{Ejections, Seat},
    load::Load,
};
use crate::circuit_breaker::{self, Breaker, BreakerHandle, Permit, State};

/// One endpoint. Whoever calls it holds it, so that one that was removed is gone when its last call is over.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    endpoint: Endpoint,
    load: Arc<Load>,
    /// A single endpoint has none: its target's breaker sees the same.
    guard: Option<Guard>,
}

/// What keeps calls away from an endpoint that fails.
#[derive(Debug)]
pub(super) struct Guard {
    breaker: Arc<Breaker>,
    seat: Arc<Seat>,
}

impl Node {
    /// An endpoint that nothing is known about. Must be called within a tokio runtime.
    pub(super) fn new(address: Address, way: Way, load: Load) -> Self {
        let endpoint = Endpoint::new(&address, way);
        Self { address, endpoint, load: Arc::new(load), guard: None }
    }

    /// The same endpoint, guarded by a breaker of its own, which has the series `label`.
    pub(super) fn guarded(
        &self,
        target: &'static str,
        label: Option<Arc<str>>,
        config: &circuit_breaker::Config,
        ejections: Arc<Ejections>,
    ) -> Self {
        let seat = Arc::new(Seat::new(ejections));
        let (load, heeds) = (self.load.clone(), seat.clone());
        let heed = move |transition: circuit_breaker::Transition| match transition.to {
            State::Open | State::ForcedOpen => heeds.opened(),
            State::HalfOpen => {}
            State::Closed => {
                heeds.closed();
                load.forget(Instant::now());
            }
            State::Disabled | State::MetricsOnly => heeds.closed(),
        };
        let breaker = Breaker::of_endpoint(target, self.address.name().into(), label, config, Box::new(heed));
        Self { guard: Some(Guard { breaker, seat }), ..self.alone() }
    }

    /// The same endpoint without a guard.
    pub(super) fn alone(&self) -> Self {
        Self { address: self.address.clone(), endpoint: self.endpoint.clone(), load: self.load.clone(), guard: None }
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// It is no longer chosen.
    pub(super) fn retire(&self) {
        if let Some(guard) = &self.guard {
            guard.breaker.retire();
        }
    }

    pub(super) fn send(&self, request: Request<Body>) -> endpoint::ResponseFuture {
        self.endpoint.send(request)
    }

    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        self.guard.as_ref().map(|guard| &*guard.seat)
    }

    pub(super) fn breaker(&self) -> Option<BreakerHandle> {
        self.guard.as_ref().map(|guard| guard.breaker.handle())
    }

    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.load.cost(now)
    }

    /// It failed to connect a moment ago: a call would fail at once.
    pub(super) fn is_pausing(&self, now: Instant) -> bool {
        self.endpoint.is_pausing(now)
    }

    /// Nothing speaks against it.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.seat().is_some_and(Seat::is_out) && !self.is_pausing(now)
    }

    /// The way in, while its breaker lets calls through.
    pub(super) fn acquire(&self, now: Instant, deadline: Option<Instant>) -> Option<Permit> {
        self.guard.as_ref()?.breaker.admit(now, deadline).ok()
    }

    /// The way in for a call that is to find out whether it is well again, if that is the question.
    pub(super) fn probe(&self, now: Instant, deadline: Option<Instant>) -> Option<Permit> {
        let breaker = &self.guard.as_ref()?.breaker;
        if breaker.is_closed() || self.is_pausing(now) { None } else { breaker.admit(now, deadline).ok() }
    }
}
