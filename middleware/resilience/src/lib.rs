//! Resilience layers for HTTP and gRPC services, as tower layers that work alone or in a stack.
//!
//! A layer rejects with a typed [`Rejection`](rejection::Rejection); [`respond`] writes it as
//! `application/problem+json` (RFC 9457) or as a gRPC status. Policy comes from a
//! [method table](method_table) and from the configuration types of the modules.
//!
//! | layers | modules |
//! |---|---|
//! | deadlines and attempt timeouts | [`deadline`], [`time_limit`] |
//! | load shedding, bulkheads, stream limits, shared fairly | [`concurrency_limit`], [`streams`], [`caller`] |
//! | adaptive concurrency limit (gradient, fair `CoDel` queue) | [`adaptive_limit`] |
//! | reception of requests, slow peers | [`request_body`], [`prefetched_body`] |
//! | connections that ignore `Retry-After` | [`refusal_pause`] |
//! | rate limiting per caller and per IP address | `rate_limit` |
//! | circuit breaking | [`circuit_breaker`] |
//! | retries with budgets | [`retry`], [`backoff`], [`jitter`] |
//! | fault injection | [`fault_injection`] |
//! | panics | [`catch_panic`] |
//! | background jobs | [`job`] |
//! | spans and metrics | [`trace`], [`metrics`], [`attempt_metrics`] |
//! | addresses of clients behind proxies | [`trusted_proxies`] |
//! | request context, priorities | [`request_context`], [`context`], [`priority`] |
//!
//! # Features
//!
//! None is enabled by default: the layers alone depend on at most 60 packages. Without a feature,
//! its modules and methods are missing; everything else works.
//!
//! | feature | adds | dependencies |
//! |---|---|---|
//! | `axum` | [`Rejection`](rejection::Rejection) as the error of a handler, addresses from `ConnectInfo` | axum |
//! | `clock` | injectable wall clock, [`clock`] | time |
//! | `descriptors` | retryable methods from descriptors, [`retry`] | prost |
//! | `error-details` | `google.rpc.ErrorDetails` in gRPC statuses, [`rejection`] | tonic-types |
//! | `opentelemetry` | span layers, trace context, sampling, [`trace`] | opentelemetry |
//! | `rate-limit` | rate limits per key, `rate_limit` | governor |
//! | `schema` | JSON schema of the settings | schemars |
//! | `full` | all of these | |

pub mod adaptive_limit;
pub mod attempt_metrics;
pub mod backoff;
pub mod body;
pub mod caller;
pub mod catch_panic;
pub mod circuit_breaker;
pub mod clock;
pub mod concurrency_limit;
pub mod context;
pub mod counter;
pub mod deadline;
mod fair_share;
pub mod fault_injection;
pub mod filter;
pub mod grpc_status;
pub mod jitter;
pub mod job;
pub mod log_budget;
pub mod method_table;
pub mod metrics;
pub mod naming;
pub mod planted;
pub mod prefetched_body;
pub mod priority;
pub mod protocol;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
pub mod redact;
pub mod refusal_pause;
pub mod rejection;
pub mod request_body;
pub mod request_context;
#[cfg(feature = "opentelemetry")]
pub mod request_log;
pub mod respond;
mod response_outcome;
pub mod retry;
pub mod scheme;
mod service_scope;
pub mod setting;
mod streaming_call;
pub mod streams;
mod sync;
pub mod task;
pub mod time_limit;
pub mod trace;
pub mod trusted_proxies;

#[cfg(test)]
#[path = "../../tests/support/in_memory_exporter.rs"]
mod in_memory_exporter;
