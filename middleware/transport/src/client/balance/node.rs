//! Endpoint state of the balancer: connection, load and breaker.

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
use palisade_resilience::{
    circuit_breaker::{self, Breaker, BreakerHandle, Permit, State},
    time_limit::TimeLimit,
};

/// One balanced endpoint. Each call holds a reference, so that a removed endpoint is dropped after
/// its last call.
#[derive(Debug)]
pub(super) struct BalancedEndpoint {
    pub(super) address: Address,
    endpoint: Endpoint,
    load: Arc<PeakEwma>,
    /// `None` for a single endpoint: the target's breaker records the same calls.
    outlier_detection: Option<EndpointBreaker>,
}

/// Breaker and ejection state that keep calls away from a failing endpoint.
#[derive(Debug)]
pub(super) struct EndpointBreaker {
    breaker: Arc<Breaker>,
    slot: Arc<EjectionSlot>,
}

impl BalancedEndpoint {
    /// Creates an endpoint without statistics. Must be called within a tokio runtime.
    pub(super) fn new(address: Address, way: ConnectParams, load: PeakEwma) -> Self {
        let endpoint = Endpoint::new(&address, way);
        Self { address, endpoint, load: Arc::new(load), outlier_detection: None }
    }

    /// Returns the same endpoint with a breaker, which uses the metric label `label`.
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
        Self { outlier_detection: Some(EndpointBreaker { breaker, slot: seat }), ..self.without_breaker() }
    }

    /// Returns the same endpoint without a breaker.
    pub(super) fn without_breaker(&self) -> Self {
        Self { address: self.address.clone(), endpoint: self.endpoint.clone(), load: self.load.clone(), outlier_detection: None }
    }

    pub(super) fn has_breaker(&self) -> bool {
        self.outlier_detection.is_some()
    }

    /// Retires the breaker of an endpoint that was removed from the set.
    pub(super) fn retire(&self) {
        if let Some(guard) = &self.outlier_detection {
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
        self.outlier_detection.as_ref().map(|guard| &*guard.slot)
    }

    pub(super) fn breaker(&self) -> Option<BreakerHandle> {
        self.outlier_detection.as_ref().map(|guard| guard.breaker.handle())
    }

    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.load.cost(now)
    }

    /// Returns the end of the connect backoff, or `None` outside of it.
    pub(super) fn backoff_end(&self, now: Instant) -> Option<Instant> {
        self.endpoint.backoff_end(now)
    }

    /// Whether the endpoint is in connect backoff: a call that needs a connection would fail
    /// immediately.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        self.endpoint.is_backing_off(now)
    }

    /// Whether the endpoint is neither ejected nor in connect backoff.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.ejection_slot().is_some_and(EjectionSlot::is_ejected) && !self.is_backing_off(now)
    }

    /// Acquires a breaker permit, or `None` while the breaker rejects calls.
    pub(super) fn acquire(&self, now: Instant, deadline: Option<TimeLimit>) -> Option<Permit> {
        self.outlier_detection.as_ref()?.breaker.try_acquire(now, deadline).ok()
    }

    /// Acquires a probe permit, or `None` if the breaker is closed or has no free probe.
    pub(super) fn acquire_probe(&self, now: Instant, deadline: Option<TimeLimit>) -> Option<Permit> {
        let breaker = &self.outlier_detection.as_ref()?.breaker;
        if breaker.is_closed() || self.is_backing_off(now) { None } else { breaker.try_acquire(now, deadline).ok() }
    }
}
