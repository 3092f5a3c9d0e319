//! Resilience middleware for HTTP and gRPC services, in one crate.
//!
//! This facade assembles the two visible stacks, [`server::stack`] and [`client::connect`], and
//! re-exports the crates below it, each of which can be used alone:
//!
//! | crate | content |
//! |---|---|
//! | `palisade-resilience` | tower layers: deadlines, retries, circuit breakers, limits, spans, metrics |
//! | `palisade-auth` | JWT, JWKS, revocation, internal tokens, authorization |
//! | `palisade-transport` | accept loop, load balancing, outlier ejection, TLS |
//! | `palisade-discovery` | DNS, SRV, etcd, registration |
//! | `palisade-runtime` | configuration, telemetry, admin port, health, shutdown |
//!
//! `examples/http_service.rs` and `examples/grpc_service.rs` are whole services in a few lines.

pub mod client;
pub mod server;

pub use palisade_auth as auth;
pub use palisade_resilience::{
    adaptive_limit, attempt_metrics, backoff, body, caller, catch_panic, circuit_breaker, clock, concurrency_limit, context, counter,
    deadline, fault_injection, filter, gauge, grpc_status, histogram, jitter, job, log_budget, method_table, metrics, naming, planted,
    prefetched_body, priority, rate_limit, redact, refusal_pause, rejection, request_body, request_context, respond, retry, scheme,
    setting, streams, task, trace, trusted_proxies,
};
pub use palisade_runtime::{
    admin, config, content_negotiation, cursor, database_clock, group_commit, health, jobs, parse, preconditions, private_file, process,
    store_instrumentation, telemetry,
};
pub use palisade_transport::{network, tls};

/// Service discovery and registration.
pub mod discovery {
    pub use palisade_discovery::{Config, InvalidConfig, InvalidUpstream, UpstreamUrl, spawn_resolver};
    pub use palisade_runtime::registration;
}

/// The examples of the other crates' READMEs run with the documentation tests.
#[cfg(doctest)]
mod readmes {
    #[doc = include_str!("../resilience/README.md")]
    struct Resilience;
    #[doc = include_str!("../transport/README.md")]
    struct Transport;
}
