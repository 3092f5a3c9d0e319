//! Metric catalog: name, kind, unit, labels and help text of every metric of this crate.
//! Dashboards, alert rules and docs/metrics.md are checked against it.

use std::borrow::Cow;

use metrics::Unit;

use crate::naming;

/// Metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// OpenTelemetry name, with dots. [`Metric::full_name`] has the prefix of the application.
    pub name: &'static str,
    /// Kind of metric.
    pub kind: Kind,
    /// Unit of the values. `None` for plain numbers.
    pub unit: Option<Unit>,
    /// Label names in OpenTelemetry form. Their values are bounded by code.
    pub labels: &'static [&'static str],
    /// One-line description.
    pub help: &'static str,
}

/// Kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Monotonic counter.
    Counter,
    /// Monotonic counter of fractions, such as CPU seconds. It is recorded as a gauge, because the
    /// counters of the recorder are integers, and exposed as a counter.
    FractionCounter,
    /// Value that rises and falls.
    Gauge,
    /// Histogram with the buckets for durations.
    Histogram,
    /// Histogram with the buckets for small integers, from 1.
    CountHistogram,
}

impl Metric {
    /// Creates a counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: None, labels, help }
    }

    /// Creates a counter of fractions under its full Prometheus name.
    pub const fn fraction_counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::FractionCounter, unit: None, labels: &[], help }
    }

    /// Creates a gauge without a unit.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: None, labels, help }
    }

    /// Creates a gauge in seconds.
    pub const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: Some(Unit::Seconds), labels, help }
    }

    /// Creates a duration histogram in seconds.
    pub const fn durations(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, unit: Some(Unit::Seconds), labels, help }
    }

    /// Creates a histogram of small integers.
    pub const fn counts(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::CountHistogram, unit: None, labels, help }
    }

    /// Returns the name with the prefix of the application
    /// ([`Naming`](crate::naming::Naming)).
    pub fn full_name(&self) -> Cow<'static, str> {
        naming::current().metric_name(self.name)
    }

    /// Returns the Prometheus name: underscores, the unit, and `_total` for counters.
    pub fn exposed(&self) -> String {
        let mut name = self.full_name().replace('.', "_");
        if let Some(unit) = self.unit {
            name.push('_');
            name.push_str(unit.as_str());
        }
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }

    fn describe(&self) {
        let name = self.full_name();
        match (self.kind, self.unit) {
            (Kind::Counter, None) => metrics::describe_counter!(name, self.help),
            (Kind::Counter, Some(unit)) => metrics::describe_counter!(name, unit, self.help),
            (Kind::Gauge | Kind::FractionCounter, None) => metrics::describe_gauge!(name, self.help),
            (Kind::Gauge | Kind::FractionCounter, Some(unit)) => metrics::describe_gauge!(name, unit, self.help),
            (Kind::Histogram | Kind::CountHistogram, None) => metrics::describe_histogram!(name, self.help),
            (Kind::Histogram | Kind::CountHistogram, Some(unit)) => metrics::describe_histogram!(name, unit, self.help),
        }
    }
}

/// Registers units and descriptions with the recorder. The unit is part of the exposed name.
pub fn describe(metrics: &[Metric]) {
    metrics.iter().for_each(Metric::describe);
}

/// Metrics recorded by the layers of this crate.
pub static CATALOG: &[Metric] = &[
    Metric::gauge("build.info", &["version", "revision"], "Constant 1, labelled with the version and revision of the build"),
    Metric::durations(
        "http.server.request.duration",
        &["http.request.method", "url.scheme", "http.route", "http.response.status_code", "error.type"],
        "Duration of HTTP server requests until the last byte, of streams until the response head, seconds",
    ),
    Metric::gauge("http.server.active_requests", &["http.request.method", "url.scheme"], "HTTP server requests in flight"),
    Metric::durations(
        "rpc.server.call.duration",
        &["rpc.system.name", "rpc.method", "rpc.status_code", "error.type"],
        "Duration of gRPC server calls until the trailers, of streams until the response head, seconds",
    ),
    Metric::gauge("palisade.rpc.server.active_calls", &["rpc.method"], "gRPC server calls in flight"),
    Metric::durations(
        "rpc.client.call.duration",
        &["rpc.system.name", "rpc.method", "server.address", "rpc.status_code", "error.type"],
        "Duration of gRPC client calls including retries, seconds",
    ),
    Metric::counter(
        "grpc.client.attempt.started",
        &["grpc.method", "grpc.target", "grpc.attempt.type"],
        "gRPC client call attempts started, by type: first attempt (original) or retry",
    ),
    Metric::durations(
        "grpc.client.attempt.duration",
        &["grpc.method", "grpc.target", "grpc.status"],
        "Duration of gRPC client call attempts, seconds",
    ),
    Metric::counts("grpc.client.call.retries", &["grpc.method", "grpc.target"], "Retries per gRPC client call with retries"),
    Metric::counts(
        "grpc.client.call.transparent_retries",
        &["grpc.method", "grpc.target"],
        "Transparent retries per gRPC client call: requests resent because they never reached the server",
    ),
    Metric::durations(
        "http.client.request.duration",
        &["http.request.method", "server.address", "server.port", "http.response.status_code", "error.type"],
        "Duration of HTTP client requests including retries, seconds",
    ),
    Metric::durations(
        "palisade.http.client.attempt.duration",
        &["http.request.method", "target", "attempt.type", "http.response.status_code", "error.type"],
        "Duration of HTTP client request attempts, by type: first attempt (original) or retry, seconds",
    ),
    Metric::gauge(
        "palisade.retry.budget.tokens",
        &["target"],
        "Remaining retry budget, tokens; retries are denied at half or less (gRFC A6)",
    ),
    Metric::counter("palisade.retry.budget.exhausted", &["target"], "Retries denied by the retry budget"),
    Metric::counter("palisade.retries.denied", &["target", "reason"], "Failed attempts that were not retried, by reason"),
    Metric::gauge("palisade.breaker.state", &["target", "scope", "endpoint"], "Circuit breaker state: 0 closed, 1 open, 2 half-open"),
    Metric::gauge(
        "palisade.breaker.manual",
        &["target"],
        "1 while the circuit breaker does not decide by itself: forced open, disabled, or metrics only",
    ),
    Metric::counter(
        "palisade.breaker.transitions",
        &["target", "scope", "endpoint", "to", "reason"],
        "Circuit breaker state transitions, by new state and reason",
    ),
    Metric::counter(
        "palisade.breaker.calls",
        &["target", "scope", "endpoint", "outcome"],
        "Calls recorded by the circuit breaker, by outcome",
    ),
    Metric::counter("palisade.breaker.rejected", &["target", "scope", "endpoint"], "Calls rejected by an open circuit breaker"),
    Metric::gauge(
        "palisade.breaker.failure_ratio",
        &["target", "scope", "endpoint"],
        "Failure ratio in the circuit breaker window, 0 to 1; NaN below the minimum number of calls",
    ),
    Metric::gauge(
        "palisade.breaker.slow_ratio",
        &["target", "scope", "endpoint"],
        "Slow call ratio in the circuit breaker window, 0 to 1; NaN below the minimum number of calls",
    ),
    Metric::gauge("palisade.breaker.window_calls", &["target", "scope", "endpoint"], "Calls in the circuit breaker window"),
    Metric::counter(
        "palisade.request.timeouts",
        &["target", "kind"],
        "Timeouts, each counted once where its time was set, by kind: calls (deadline), attempts (attempt), times of callers (caller)",
    ),
    Metric::durations("palisade.deadline.remaining", &[], "Remaining time of inbound requests with a deadline, seconds"),
    Metric::counter("palisade.grpc_timeout.parse_errors", &[], "Requests with an invalid grpc-timeout header"),
    Metric::counter("palisade.requests.shed", &["reason"], "Requests shed to protect the process, by reason"),
    Metric::counter("palisade.rate_limit.missing_keys", &["key"], "Requests without the key of a rate limit, by kind of key"),
    Metric::gauge("palisade.concurrency.limit", &["limiter"], "Concurrency limit, requests or calls, by limiter"),
    Metric::gauge(
        "palisade.concurrency.in_use",
        &["limiter"],
        "Permits in use, by limiter: requests being received or processed, calls until the end of the response",
    ),
    Metric::gauge("palisade.responses.unread", &["protocol"], "Complete responses that their peers have not taken yet, by protocol"),
    Metric::gauge("palisade.rejections.held_back", &[], "Rejections held back on connections that ignore Retry-After"),
    Metric::gauge("palisade.queue.depth", &["limiter"], "Requests queued for a concurrency permit, by limiter"),
    Metric::durations("palisade.queue.wait", &["limiter"], "Queue wait time of requests without an immediate permit, by limiter, seconds"),
    Metric::counter("palisade.jwks.refreshes", &["outcome"], "JWKS refreshes, by outcome; after a failure the old keys stay in use"),
    Metric::counter(
        "palisade.revocation_list.reloads",
        &["outcome"],
        "Revocation list reloads, by outcome; if the file is unreadable the old list stays in use",
    ),
    Metric::gauge("palisade.ready", &[], "1 while the service accepts requests (readiness), else 0"),
    Metric::gauge(
        "palisade.dependency.up",
        &["dependency", "required"],
        "1 while probes of a dependency or a background job succeed, by whether readiness requires it",
    ),
    Metric::counter("palisade.auth.rejections", &["reason"], "Requests rejected by authentication, by reason"),
    Metric::counter("palisade.auth.tokens.revoked", &[], "Requests rejected because of a revoked token"),
    Metric::gauge("palisade.streams.open", &["protocol"], "Open streams, by protocol"),
    Metric::counter("palisade.streams.ended", &["protocol", "reason"], "Ended streams, by protocol and reason"),
    Metric::gauge("palisade.connections.open", &["listener"], "Open connections, by listener (public, admin)"),
    Metric::gauge("palisade.connections.limit", &["listener"], "Maximum open connections, by listener"),
    Metric::gauge("palisade.connections.waiting_bytes", &["listener"], "Response bytes in memory that wait for their readers, by listener"),
    Metric::counter("palisade.connections.closed", &["reason"], "Connections and streams closed at a limit, by reason"),
    Metric::counter("palisade.outlier.ejections", &["target", "enforced"], "Outlier ejections of endpoints, by whether they were enforced"),
    Metric::counter(
        "palisade.lb.panic_mode_picks",
        &["target"],
        "Panic-mode picks: attempts sent to an ejected endpoint because all endpoints fail",
    ),
    Metric::gauge("palisade.lb.endpoints", &["target"], "Known endpoints of a target; 0 until the first successful resolution"),
    Metric::counter(
        "palisade.discovery.resolutions",
        &["target", "outcome"],
        "Discovery resolutions of a target, by outcome: endpoints (ok), no endpoint (empty), timeout or error (failed)",
    ),
    Metric::counter(
        "palisade.discovery.invalid_entries",
        &["target"],
        "Discovery entries ignored per resolution: invalid addresses and those over the limit",
    ),
    Metric::seconds(
        "palisade.discovery.last_success_age",
        &["target"],
        "Age of the last successful resolution of the endpoints in use, seconds",
    ),
    Metric::gauge("palisade.registration.up", &["service"], "Registration state: 1 while this service is listed in the registry"),
    Metric::counter(
        "palisade.registration.changes",
        &["service", "outcome"],
        "Registry entries of this service, by outcome: created (made), lost or failed to create (lost)",
    ),
    Metric::counter("palisade.panics", &[], "Panics of handlers and background jobs"),
    Metric::counter("palisade.job.restarts", &["name"], "Restarts of a background job after a panic, an error or an early end"),
    Metric::gauge("palisade.job.failures", &["name"], "Failures of a background job since its last success"),
    Metric::seconds("palisade.job.last_success", &["name"], "Time of the last success of a background job, seconds since 1970"),
    Metric::seconds(
        "palisade.tls.certificate.expiry",
        &["certificate"],
        "Expiry time of a certificate in use (`server` or the upstream it is presented to), seconds since 1970",
    ),
    Metric::counter("palisade.tls.reloads", &["certificate", "outcome"], "Certificate reloads after a change, by outcome"),
    Metric::gauge("palisade.faults.active", &[], "Active fault injection rules; 0 in normal operation"),
    Metric::counter("palisade.faults.injected", &["kind"], "Requests with an injected fault, by kind"),
    Metric::durations(
        "db.client.operation.duration",
        &["db.system.name", "db.namespace", "db.collection.name", "db.operation.name", "error.type"],
        "Duration of store operations including the wait for a connection, seconds",
    ),
    Metric::gauge(
        "db.client.connection.count",
        &["db.client.connection.pool.name", "db.client.connection.state"],
        "Connections of a pool, by state (idle, used)",
    ),
    Metric::gauge("db.client.connection.limit", &["db.client.connection.pool.name"], "Maximum connections of a pool"),
    Metric::gauge(
        "db.client.connection.pending_requests",
        &["db.client.connection.pool.name"],
        "Requests waiting for a connection of a pool",
    ),
    Metric::counter("db.client.connection.timeouts", &["db.client.connection.pool.name"], "Waits for a connection that ended without one"),
    Metric::durations(
        "db.client.connection.wait_time",
        &["db.client.connection.pool.name"],
        "Wait time for a connection of a pool, seconds",
    ),
    Metric::seconds("palisade.store.clock_offset", &[], "Time of the database server minus the time of the process, seconds"),
    Metric::counter("otel.sdk.span.started", &[], "Sampled spans started"),
    Metric::counter(
        "otel.sdk.processor.span.processed",
        &["error.type"],
        "Spans passed to the exporter, or dropped because the queue was full (error_type)",
    ),
    Metric::counter("otel.sdk.exporter.span.exported", &["error.type"], "Spans exported to the collector, or lost (error_type)"),
    Metric::durations("otel.sdk.exporter.operation.duration", &["error.type"], "Duration of span exports, seconds"),
    Metric::counter("palisade.log.records", &["level"], "Log records written, by level"),
    Metric::counter(
        "palisade.tail_sampling.traces",
        &["outcome"],
        "Unsampled traces of failed and slow requests: kept, over_budget, expired or unsent",
    ),
    Metric::counter("palisade.log.dropped", &[], "Log records dropped because the writer was too slow"),
    Metric::fraction_counter("process_cpu_seconds_total", "CPU time used, seconds"),
    Metric::gauge("process_resident_memory_bytes", &[], "Resident memory, bytes"),
    Metric::gauge("process_virtual_memory_bytes", &[], "Virtual memory, bytes"),
    Metric::gauge("process_virtual_memory_max_bytes", &[], "Virtual memory limit, bytes"),
    Metric::gauge("process_open_fds", &[], "Open file descriptors"),
    Metric::gauge("process_max_fds", &[], "Limit of open file descriptors"),
    Metric::gauge("process_threads", &[], "Threads of the process"),
    Metric::gauge("process_start_time_seconds", &[], "Start time of the process, seconds since 1970"),
    Metric::gauge("tokio.workers", &[], "Worker threads of the Tokio runtime"),
    Metric::fraction_counter("tokio_busy_seconds_total", "Busy time of the Tokio workers, seconds"),
    Metric::gauge("tokio.alive_tasks", &[], "Live tasks of the Tokio runtime"),
    Metric::gauge("tokio.global_queue.depth", &[], "Tasks in the global queue of the Tokio runtime"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_name_includes_unit() {
        let exposed: Vec<_> = CATALOG.iter().map(Metric::exposed).collect();
        for name in ["http_server_request_duration_seconds", "palisade_requests_shed_total", "palisade_breaker_state"] {
            assert!(exposed.iter().any(|exposed| exposed == name), "{name}");
        }
    }

    #[test]
    fn exposed_names_are_unique() {
        let mut exposed: Vec<_> = CATALOG.iter().map(Metric::exposed).collect();
        exposed.sort();
        exposed.dedup();
        assert_eq!(exposed.len(), CATALOG.len());
    }
}
