//! One endpoint as the balancer sees it: how to reach it, how busy it is, and whether it is well.

use std::sync::Arc;

use http::Request;
use tokio::time::Instant;
use tonic::body::Body;

use super::{
    super::{
        address::Address,
        connector::ConnectParams,
        endpoint::{self, Endpoint},
    },
    outlier_ejection::{EjectionLimit, EjectionSlot},
    peak_ewma::PeakEwma,
};
use crate::circuit_breaker::{self, Breaker, BreakerHandle, Permit, State};

/// One endpoint. Whoever calls it holds it, so that one that was removed is gone when its last call is over.
#[derive(Debug)]
pub(super) struct BalancedEndpoint {
    pub(super) address: Address,
    endpoint: Endpoint,
    load: Arc<PeakEwma>,
    /// A single endpoint has none: its target's breaker sees the same.
    endpoint_breaker: Option<EndpointBreaker>,
}

/// What keeps calls away from an endpoint that fails.
#[derive(Debug)]
pub(super) struct EndpointBreaker {
    breaker: Arc<Breaker>,
    slot: Arc<EjectionSlot>,
}

impl BalancedEndpoint {
    /// An endpoint that nothing is known about. Must be called within a tokio runtime.
    pub(super) fn new(address: Address, way: ConnectParams, load: PeakEwma) -> Self {
        let endpoint = Endpoint::new(&address, way);
        Self { address, endpoint, load: Arc::new(load), endpoint_breaker: None }
    }

    /// The same endpoint, guarded by a breaker of its own, which has the series `label`.
    pub(super) fn with_breaker(
        &self,
        target: &'static str,
        label: Option<Arc<str>>,
        config: &circuit_breaker::Config,
        ejections: Arc<EjectionLimit>,
    ) -> Self {
        let seat = Arc::new(EjectionSlot::new(ejections));
        let (load, ejection) = (self.load.clone(), seat.clone());
        let on_transition = move |transition: circuit_breaker::Transition| match transition.to {
            State::Open | State::ForcedOpen => ejection.breaker_opened(),
            State::HalfOpen => {}
            State::Closed => {
                ejection.breaker_closed();
                load.reset(Instant::now());
            }
            State::Disabled | State::MetricsOnly => ejection.breaker_closed(),
        };
        let breaker = Breaker::for_endpoint(target, self.address.name().into(), label, config, Box::new(on_transition));
        Self { endpoint_breaker: Some(EndpointBreaker { breaker, slot: seat }), ..self.without_breaker() }
    }

    /// The same endpoint without a guard.
    pub(super) fn without_breaker(&self) -> Self {
        Self { address: self.address.clone(), endpoint: self.endpoint.clone(), load: self.load.clone(), endpoint_breaker: None }
    }

    pub(super) fn has_breaker(&self) -> bool {
        self.endpoint_breaker.is_some()
    }

    /// It is no longer chosen.
    pub(super) fn retire(&self) {
        if let Some(guard) = &self.endpoint_breaker {
            guard.breaker.retire();
        }
    }

    pub(super) fn send(&self, request: Request<Body>) -> endpoint::ResponseFuture {
        self.endpoint.send(request)
    }

    pub(super) fn load(&self) -> &PeakEwma {
        &self.load
    }

    pub(super) fn ejection_slot(&self) -> Option<&EjectionSlot> {
        self.endpoint_breaker.as_ref().map(|guard| &*guard.slot)
    }

    pub(super) fn breaker(&self) -> Option<BreakerHandle> {
        self.endpoint_breaker.as_ref().map(|guard| guard.breaker.handle())
    }

    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.load.cost(now)
    }

    /// It failed to connect a moment ago: a call would fail at once.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        self.endpoint.is_backing_off(now)
    }

    /// Nothing speaks against it.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.ejection_slot().is_some_and(EjectionSlot::is_ejected) && !self.is_backing_off(now)
    }

    /// The way in, while its breaker lets calls through.
    pub(super) fn acquire(&self, now: Instant, deadline: Option<Instant>) -> Option<Permit> {
        self.endpoint_breaker.as_ref()?.breaker.try_acquire(now, deadline).ok()
    }

    /// The way in for a call that is to find out whether it is well again, if that is the question.
    pub(super) fn acquire_probe(&self, now: Instant, deadline: Option<Instant>) -> Option<Permit> {
        let breaker = &self.endpoint_breaker.as_ref()?.breaker;
        if breaker.is_closed() || self.is_backing_off(now) { None } else { breaker.try_acquire(now, deadline).ok() }
    }
}
