//! The stacks of this project, with the settings of a policy.

use std::sync::Arc;

use axum::Router;
use futures_util::{FutureExt, future::BoxFuture};
use palisade_middleware::{
    adaptive_limit,
    auth::Verifier,
    circuit_breaker::{self, Mode},
    client,
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    network, rate_limit,
    respond::Protocol,
    retry::{self, MethodContracts},
    server::{self, accept},
};
use prost::{DecodeError, Message};
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto, method_options::IdempotencyLevel,
};
use tokio_util::sync::CancellationToken;
use tower::{layer::util::Identity, util::BoxCloneSyncService};

use super::{Client, Stack};
use crate::{
    format::{BreakerPolicy, ClientPolicy, Need, READ, ServerPolicy, WRITE},
    network::{InMemory, Listener},
};

/// Limit of a policy that is switched off.
const UNLIMITED: u32 = 100_000;
const UNLIMITED_MS: u64 = 600_000;

static METHODS: [Method; 2] = [Method::grpc(READ, Access::Public), Method::grpc(WRITE, Access::Public)];

/// `client::connect` and `server::stack`, with a defect to prove that the scenarios find it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Palisade {
    /// The planted defect.
    pub defect: Option<Defect>,
}

/// Defect of the settings. Those of the code are switched on by `planted!`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A breaker only reports.
    BreakerNeverOpens,
    /// All methods count as idempotent.
    WritesRetried,
    /// Retries without a budget.
    NoRetryBudget,
    /// Backoff of 1 ms.
    NoBackoff,
    /// No timeout of an attempt.
    NoAttemptTimeout,
    /// No limit on calls in flight.
    NoBulkhead,
    /// No limit on requests in flight.
    NoLoadShedding,
    /// The longest deadline is ignored.
    NoMaxDeadline,
    /// A failing endpoint stays in use.
    NoOutlierDetection,
    /// Connections are closed at once at shutdown.
    NoDrain,
}

impl Stack for Palisade {
    fn name(&self) -> &'static str {
        "Palisade"
    }

    fn provides(&self, _: Need) -> bool {
        true
    }

    fn has_our_metrics(&self) -> bool {
        true
    }

    fn client(&self, urls: &[String], policy: &ClientPolicy) -> anyhow::Result<Client> {
        if network::installed().is_none() {
            // Another scenario may have been faster.
            let _ = network::install(Box::new(InMemory));
        }
        let config = self.client_config(urls, policy);
        let contracts = if self.has(Defect::WritesRetried) { [READ, WRITE].into_iter().collect() } else { contracts()? };
        let client = client::connect("target", &config, contracts, Identity::new())?;
        let endpoints = client.endpoints().cloned();
        let set_endpoints = move |urls: &[String]| {
            if let Some(endpoints) = &endpoints {
                // The URLs are valid.
                let _ = endpoints.set(urls.iter().map(String::as_str));
            }
        };
        Ok(Client { service: BoxCloneSyncService::new(client), set_endpoints: Arc::new(set_endpoints) })
    }

    fn serve(
        &self,
        listener: Listener,
        policy: &ServerPolicy,
        handler: Router,
        shutdown: CancellationToken,
    ) -> anyhow::Result<BoxFuture<'static, ()>> {
        let config = self.server_config(policy);
        config.validate()?;
        let table = Arc::new(MethodTable::new(&[&METHODS])?);
        let verifier = Arc::new(Verifier::new(Vec::new(), Arc::new(SystemClock))?);
        let stack = server::stack(Protocol::Grpc, handler, table, verifier, Faults::disabled(), &config);
        let connections = accept::Connections::new("public", Protocol::Grpc, &config, None);
        Ok(async move { accept::serve_incoming(listener, connections, stack, shutdown).await }.boxed())
    }
}

impl Palisade {
    fn has(self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn client_config(self, urls: &[String], policy: &ClientPolicy) -> client::Config {
        let mut config = client::Config::at(urls.join(","));
        config.connect_timeout_ms = policy.connect_timeout_ms;
        let attempt_timeout = policy.attempt_timeout_ms.filter(|_| !self.has(Defect::NoAttemptTimeout));
        config.attempt_timeout_ms = attempt_timeout.unwrap_or(UNLIMITED_MS);
        config.call_timeout_ms = policy.call_timeout_ms.unwrap_or(UNLIMITED_MS);
        config.max_in_flight = policy.max_in_flight.filter(|_| !self.has(Defect::NoBulkhead)).unwrap_or(UNLIMITED);
        config.retry = self.retry_config(policy);
        config.circuit_breaker = breaker_config(policy.breaker.as_ref());
        if self.has(Defect::BreakerNeverOpens) {
            config.circuit_breaker.mode = Mode::MetricsOnly;
        }
        config.outlier_detection = breaker_config(policy.outlier_detection.as_ref());
        if self.has(Defect::NoOutlierDetection) {
            config.outlier_detection.mode = Mode::Disabled;
        }
        config.balance.max_ejected = f64::from(policy.max_ejected_percent) / 100.0;
        config
    }

    fn retry_config(self, policy: &ClientPolicy) -> retry::Config {
        let budget = !self.has(Defect::NoRetryBudget);
        let [base_ms, max_ms] = if self.has(Defect::NoBackoff) { [1, 1] } else { policy.backoff_ms };
        retry::Config {
            enabled: policy.attempts > 1,
            max_attempts: policy.attempts.max(2),
            base_ms,
            max_ms,
            // Half of the tokens are the burst.
            tokens: policy.retry_burst.filter(|_| budget).map_or(UNLIMITED, |burst| burst * 2),
            in_flight_percent: policy.retries_in_flight_percent.filter(|_| budget).unwrap_or(100),
            in_flight_min: if policy.retries_in_flight_percent.is_some() && budget { 3 } else { UNLIMITED },
            ..retry::Config::default()
        }
    }

    fn server_config(self, policy: &ServerPolicy) -> server::Config {
        let mut config = server::Config {
            // Rate limits read a clock of their own.
            rate_limit: rate_limit::Config { per_second: 0, burst: 0 },
            address_limit: rate_limit::AddressConfig { per_second: 0, public_per_second: 0, ..rate_limit::AddressConfig::default() },
            max_in_flight: UNLIMITED as usize,
            ..server::Config::default()
        };
        if let Some(limit) = policy.max_in_flight.filter(|_| !self.has(Defect::NoLoadShedding)) {
            config.max_in_flight = limit as usize;
        }
        config.adaptive_limit.enabled = false;
        if let Some([initial_limit, min_limit, max_limit]) = policy.adaptive_limit {
            config.adaptive_limit = adaptive_limit::Config { initial_limit, min_limit, max_limit, ..adaptive_limit::Config::default() };
        }
        config.default_deadline_ms = policy.default_deadline_ms.unwrap_or(UNLIMITED_MS);
        let max_deadline = policy.max_deadline_ms.filter(|_| !self.has(Defect::NoMaxDeadline));
        config.max_deadline_ms = max_deadline.unwrap_or(UNLIMITED_MS);
        config.default_deadline_ms = config.default_deadline_ms.min(config.max_deadline_ms);
        if let Some(timeout) = policy.drain_timeout_ms {
            config.drain_timeout_ms = timeout;
        }
        if self.has(Defect::NoDrain) {
            config.drain_timeout_ms = 1;
        }
        config.max_connection_age_ms = policy.max_connection_age_ms.unwrap_or(0);
        config
    }
}

/// The contract of the target: both methods are unary, only one is idempotent.
fn contracts() -> Result<MethodContracts, DecodeError> {
    let method = |path: &str, level: IdempotencyLevel| MethodDescriptorProto {
        name: path.rsplit('/').next().map(str::to_owned),
        options: Some(MethodOptions { idempotency_level: Some(level.into()), ..MethodOptions::default() }),
        ..MethodDescriptorProto::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("Target".to_owned()),
        method: vec![method(READ, IdempotencyLevel::NoSideEffects), method(WRITE, IdempotencyLevel::IdempotencyUnknown)],
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto { package: Some("scenario.v1".to_owned()), service: vec![service], ..FileDescriptorProto::default() };
    MethodContracts::from_descriptors(&FileDescriptorSet { file: vec![file] }.encode_to_vec())
}

fn breaker_config(policy: Option<&BreakerPolicy>) -> circuit_breaker::Config {
    let Some(policy) = policy else {
        return circuit_breaker::Config { mode: Mode::Disabled, ..circuit_breaker::Config::default() };
    };
    circuit_breaker::Config {
        window_ms: policy.window_ms,
        min_calls: policy.min_calls,
        failure_rate: policy.failure_rate,
        consecutive_failures: policy.consecutive_failures.unwrap_or(0),
        slow_call_ms: policy.slow_call_ms.unwrap_or(0),
        slow_rate: policy.slow_rate,
        open_ms: policy.open_ms,
        max_open_ms: policy.max_open_ms.unwrap_or(policy.open_ms),
        probes: policy.probes,
        half_open_timeout_ms: policy.probe_timeout_ms,
        ..circuit_breaker::Config::default()
    }
}
