//! Every metric of this crate, and how a service tells of its own: name, kind, unit, labels, meaning. Dashboards and rules go by it.

use metrics::Unit;

/// One family of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name in OpenTelemetry's form, with dots.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Unit of its values; `None` for plain counts.
    pub unit: Option<Unit>,
    /// Its labels, in OpenTelemetry's form; their values are bounded by code.
    pub labels: &'static [&'static str],
    /// What it tells, in one line.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations, or whatever has the buckets of durations.
    Histogram,
    /// Small whole numbers, from 1.
    CountHistogram,
}

impl Metric {
    /// A counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: None, labels, help }
    }

    /// A gauge of plain numbers.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: None, labels, help }
    }

    /// A gauge of seconds.
    pub const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: Some(Unit::Seconds), labels, help }
    }

    /// A histogram of seconds.
    pub const fn durations(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, unit: Some(Unit::Seconds), labels, help }
    }

    /// A histogram of small whole numbers.
    pub const fn counts(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::CountHistogram, unit: None, labels, help }
    }

    /// The name that Prometheus sees: underscores, the unit, `_total` for counters.
    pub fn exposed(&self) -> String {
        let mut name = self.name.replace('.', "_");
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
        match (self.kind, self.unit) {
            (Kind::Counter, None) => metrics::describe_counter!(self.name, self.help),
            (Kind::Counter, Some(unit)) => metrics::describe_counter!(self.name, unit, self.help),
            (Kind::Gauge, None) => metrics::describe_gauge!(self.name, self.help),
            (Kind::Gauge, Some(unit)) => metrics::describe_gauge!(self.name, unit, self.help),
            (Kind::Histogram | Kind::CountHistogram, None) => metrics::describe_histogram!(self.name, self.help),
            (Kind::Histogram | Kind::CountHistogram, Some(unit)) => metrics::describe_histogram!(self.name, unit, self.help),
        }
    }
}

/// Tells the recorder units and meanings; a unit is a part of the exposed name.
pub fn describe(metrics: &[Metric]) {
    metrics.iter().for_each(Metric::describe);
}

/// What the layers of this crate record.
pub static CATALOG: &[Metric] = &[
    Metric::gauge("build.info", &["version", "revision"], "1, labelled with the version and the revision it was built from"),
    Metric::durations(
        "http.server.request.duration",
        &["http.request.method", "url.scheme", "http.route", "http.response.status_code", "error.type"],
        "Duration of HTTP requests, to the last byte; of streams to the first",
    ),
    Metric::gauge("http.server.active_requests", &["http.request.method", "url.scheme"], "HTTP requests in flight"),
    Metric::durations(
        "rpc.server.call.duration",
        &["rpc.system.name", "rpc.method", "rpc.status_code", "error.type"],
        "Duration of gRPC calls answered, to the trailers; of streams to the head",
    ),
    Metric::gauge("palisade.rpc.server.active_calls", &["rpc.method"], "gRPC calls in flight"),
    Metric::durations(
        "rpc.client.call.duration",
        &["rpc.system.name", "rpc.method", "server.address", "rpc.status_code", "error.type"],
        "Duration of gRPC calls made, retries included",
    ),
    Metric::counter(
        "grpc.client.attempt.started",
        &["grpc.method", "grpc.target", "grpc.attempt.type"],
        "Attempts made: the first of a call (original), or a further one (retry)",
    ),
    Metric::durations("grpc.client.attempt.duration", &["grpc.method", "grpc.target", "grpc.status"], "Duration of single attempts"),
    Metric::counts("grpc.client.call.retries", &["grpc.method", "grpc.target"], "Retries of calls that were retried"),
    Metric::counts(
        "grpc.client.call.transparent_retries",
        &["grpc.method", "grpc.target"],
        "Calls that were sent again because they had certainly not arrived",
    ),
    Metric::durations(
        "http.client.request.duration",
        &["http.request.method", "server.address", "server.port", "http.response.status_code", "error.type"],
        "Duration of HTTP calls made, retries included",
    ),
    Metric::durations(
        "palisade.http.client.attempt.duration",
        &["http.request.method", "target", "attempt.type", "http.response.status_code", "error.type"],
        "Duration of single attempts at HTTP calls: the first of a call (original), or a further one (retry)",
    ),
    Metric::gauge("palisade.retry.budget.tokens", &["target"], "Retry tokens left; retries stop at half (gRFC A6)"),
    Metric::counter("palisade.retry.budget.exhausted", &["target"], "Retries that the budget did not allow"),
    Metric::counter("palisade.retry.rejected", &["target", "reason"], "Failed attempts after which there was no other, by reason"),
    Metric::gauge("palisade.breaker.state", &["target", "breaker", "endpoint"], "0 closed, 1 open, 2 half-open"),
    Metric::counter(
        "palisade.breaker.transitions",
        &["target", "breaker", "endpoint", "to", "reason"],
        "Changes of the breaker's state, by the new one and why",
    ),
    Metric::counter("palisade.breaker.calls", &["target", "breaker", "endpoint", "outcome"], "Calls that the breaker has judged"),
    Metric::counter("palisade.breaker.rejected", &["target", "breaker", "endpoint"], "Calls refused by an open breaker"),
    Metric::gauge(
        "palisade.breaker.failure_ratio",
        &["target", "breaker", "endpoint"],
        "Share of failures in the window; NaN below the minimum of calls",
    ),
    Metric::gauge(
        "palisade.breaker.slow_ratio",
        &["target", "breaker", "endpoint"],
        "Share of slow calls in the window; NaN below the minimum of calls",
    ),
    Metric::gauge("palisade.breaker.window_calls", &["target", "breaker", "endpoint"], "Calls in the window"),
    Metric::counter("palisade.request.timeouts", &["target", "kind"], "Calls (deadline) and attempts (attempt) whose time ran out"),
    Metric::durations("palisade.deadline.remaining", &[], "Time left to requests on arrival, of those whose caller set a deadline"),
    Metric::counter("palisade.request.timeouts.malformed", &[], "Requests whose grpc-timeout could not be read"),
    Metric::counter("palisade.requests.shed", &["reason"], "Requests refused to protect the process, by reason"),
    Metric::gauge("palisade.concurrency.limit", &["limiter"], "Requests or calls that may be in flight, by limiter"),
    Metric::gauge("palisade.concurrency.in_use", &["limiter"], "Requests or calls in flight, answers included, by limiter"),
    Metric::gauge("palisade.queue.waiting", &["limiter"], "Requests that wait for a place, by limiter"),
    Metric::durations("palisade.queue.wait", &["limiter"], "How long those waited who could not run at once, by limiter"),
    Metric::counter("palisade.auth.key_set.reads", &["outcome"], "Key sets asked for, by outcome; while they fail the old keys stay"),
    Metric::counter(
        "palisade.auth.revocations.reads",
        &["outcome"],
        "Revocation files read, by outcome; while they fail the old list stays",
    ),
    Metric::counter("palisade.auth.tokens.revoked", &[], "Requests refused because their token was revoked"),
    Metric::gauge("palisade.streams.open", &["protocol"], "Streams open, by the protocol that they are served over"),
    Metric::counter("palisade.streams.ended", &["protocol", "reason"], "Streams that came to an end, by who brought it about"),
    Metric::counter("palisade.connections.cut", &["reason"], "Connections and streams that a limit put an end to, by reason"),
    Metric::counter("palisade.breaker.ejections", &["target", "enforced"], "Endpoints that failed, by whether calls then went elsewhere"),
    Metric::counter("palisade.balance.panics", &["target"], "Attempts at an endpoint that fails, because all do"),
    Metric::gauge("palisade.balance.endpoints", &["target"], "Addresses of a target that are known; 0 until a registry has told of one"),
    Metric::counter(
        "palisade.discovery.resolutions",
        &["target", "outcome"],
        "Answers of the registry of a target: addresses (ok), none (empty), none in time or an error (failed)",
    ),
    Metric::counter(
        "palisade.discovery.entries.refused",
        &["target"],
        "What a registry has told that is no address, or was beyond the bound, counted anew with each answer",
    ),
    Metric::seconds("palisade.discovery.age", &["target"], "Since when the addresses that are used were last confirmed by the registry"),
    Metric::gauge("palisade.registration.registered", &["service"], "1 while others can find this service in the registry"),
    Metric::counter(
        "palisade.registration.changes",
        &["service", "outcome"],
        "Entries of this service in the registry that were made, and attempts that failed or entries that were lost (lost)",
    ),
    Metric::counter("palisade.panics", &[], "Handlers that panicked"),
    Metric::seconds(
        "palisade.tls.certificate.expiry",
        &["certificate"],
        "When a certificate in use ends, since 1970; `server` or the upstream it is shown to",
    ),
    Metric::counter("palisade.tls.reloads", &["certificate", "outcome"], "Times that changed certificates were read, by outcome"),
    Metric::gauge("palisade.faults.active", &[], "Rules that inject faults on purpose; 0 on a normal day"),
    Metric::counter("palisade.faults.injected", &["kind"], "Requests that a fault was injected into, by kind"),
    Metric::durations(
        "db.client.operation.duration",
        &["db.system.name", "db.namespace", "db.collection.name", "db.operation.name", "error.type"],
        "Duration of operations on a store, waiting for a connection included",
    ),
    Metric::gauge(
        "db.client.connection.count",
        &["db.client.connection.pool.name", "db.client.connection.state"],
        "Connections of a pool, by state: idle or used",
    ),
    Metric::gauge("db.client.connection.limit", &["db.client.connection.pool.name"], "Connections that a pool may have"),
    Metric::gauge("db.client.connection.pending_requests", &["db.client.connection.pool.name"], "Who waits for a connection of a pool"),
    Metric::counter("db.client.connection.timeouts", &["db.client.connection.pool.name"], "Waits for a connection that were in vain"),
    Metric::durations(
        "db.client.connection.wait_time",
        &["db.client.connection.pool.name"],
        "How long it took to get a connection of a pool",
    ),
    Metric::counter("otel.sdk.span.started", &[], "Spans begun; what is not sampled begins none"),
    Metric::counter(
        "otel.sdk.processor.span.processed",
        &["error.type"],
        "Spans handed to the exporter, or dropped because the queue was full",
    ),
    Metric::counter("otel.sdk.exporter.span.exported", &["error.type"], "Spans that the collector took, or that were lost"),
    Metric::durations("otel.sdk.exporter.operation.duration", &["error.type"], "Duration of exports"),
    Metric::counter("palisade.log.lines", &["level"], "Log lines written, by level"),
    Metric::counter("palisade.log.dropped", &[], "Log lines lost because the writer could not keep up"),
    Metric::gauge("process_cpu_seconds_total", &[], "Processor time used; grows, although it is a gauge, to have fractions"),
    Metric::gauge("process_resident_memory_bytes", &[], "Resident memory"),
    Metric::gauge("process_virtual_memory_bytes", &[], "Virtual memory"),
    Metric::gauge("process_virtual_memory_max_bytes", &[], "Virtual memory that the process may have"),
    Metric::gauge("process_open_fds", &[], "Open file descriptors"),
    Metric::gauge("process_max_fds", &[], "File descriptors that the process may have open"),
    Metric::gauge("process_threads", &[], "Threads"),
    Metric::gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970"),
    Metric::gauge("tokio.workers", &[], "Worker threads of the runtime"),
    Metric::gauge("tokio_busy_seconds_total", &[], "Time that workers were busy; grows, although it is a gauge, to have fractions"),
    Metric::gauge("tokio.alive_tasks", &[], "Tasks of the runtime that have not ended"),
    Metric::gauge("tokio.global_queue.depth", &[], "Tasks that wait for any worker"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exposed_with_their_unit() {
        let exposed: Vec<_> = CATALOG.iter().map(Metric::exposed).collect();
        for name in ["http_server_request_duration_seconds", "palisade_requests_shed_total", "palisade_breaker_state"] {
            assert!(exposed.iter().any(|exposed| exposed == name), "{name}");
        }
    }

    #[test]
    fn no_two_metrics_meet_in_one_name() {
        let mut exposed: Vec<_> = CATALOG.iter().map(Metric::exposed).collect();
        exposed.sort();
        exposed.dedup();
        assert_eq!(exposed.len(), CATALOG.len());
    }
}
