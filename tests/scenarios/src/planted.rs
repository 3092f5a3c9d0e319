//! Planted faults: defects of Palisade that the scenarios must find, each with one that does.

use crate::stack::Defect;

/// Defects of the settings.
pub const DEFECTS: [(&str, Defect, &str); 10] = [
    ("breaker that never opens", Defect::BreakerNeverOpens, "breaker/opens_at_failure_rate"),
    ("write retried", Defect::WritesRetried, "retry/writes_are_not_retried"),
    ("no retry budget", Defect::NoRetryBudget, "retry/budget_stops_a_retry_storm"),
    ("no backoff", Defect::NoBackoff, "retry/backoff_has_jitter"),
    ("no attempt timeout", Defect::NoAttemptTimeout, "deadline/attempts_share_the_time_of_the_call"),
    ("no bulkhead", Defect::NoBulkhead, "overload/bulkhead_rejects_above"),
    ("no load shedding", Defect::NoLoadShedding, "overload/limit_rejects_above"),
    ("no maximum deadline", Defect::NoMaxDeadline, "deadline/server_has_a_maximum"),
    ("dead endpoint kept", Defect::NoOutlierDetection, "balancing/failing_endpoint_is_ejected"),
    ("requests in flight cut at shutdown", Defect::NoDrain, "shutdown/requests_in_flight_finish"),
];

/// Defects of the code, as `planted!` names them.
pub const FAULTS: [(&str, &str); 13] = [
    ("breaker that never closes", "breaker/half_open_after_open_time"),
    ("client errors taken for failures", "breaker/client_errors_are_successes"),
    ("deadline not passed on", "deadline/deadline_shrinks_at_each_hop"),
    ("deadline of the caller ignored", "deadline/server_enforces_the_deadline"),
    ("load ignored", "balancing/slow_endpoint_gets_few_calls"),
    ("no fair share", "overload/newcomer_gets_its_share"),
    ("permit leaked", "overload/cancelled_requests_return_permits"),
    ("pushback ignored", "retry/pushback_sets_backoff"),
    ("rejections extend the open time", "breaker/open_breaker_does_not_feed_itself"),
    ("retries multiply", "retry/nested_retries_do_not_multiply"),
    ("same endpoint tried again", "balancing/retry_uses_another_endpoint"),
    ("unlimited probes", "breaker/probes_are_limited"),
    ("unsent request taken for a sent one", "retry/refused_stream_is_retried_transparently"),
];
