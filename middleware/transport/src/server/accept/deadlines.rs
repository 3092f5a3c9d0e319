//! Deadlines of one connection: first request, maximum age, idle time, slow headers, unread
//! responses. Pure: takes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::{connection_state::ConnectionState, open_connections::EVICTION_GRACE, waiting_bytes::Pressure};
use crate::server::Config;
use palisade_resilience::jitter;

/// Jitter of the connection age, so that connections opened together do not close together.
const AGE_JITTER: f64 = 0.1;
/// Time without progress after which a reader is closed while responses wait above half of a bound.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The same above the bound.
const SHORT_PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Waiting bytes from which the progress of a connection is watched.
const WATCHED_BYTES: usize = 32 * 1024;
/// Stands for no deadline.
const FOREVER: Duration = Duration::from_hours(24);

/// Timeouts of the connections of a port.
#[derive(Debug, Clone)]
pub(super) struct Timeouts {
    first_request: Duration,
    header: Duration,
    idle: Duration,
    max_age: Option<Duration>,
    /// Grace period of a connection past its maximum age: the maximum duration of any request.
    max_age_grace: Duration,
}

impl Timeouts {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            first_request: Duration::from_millis(config.first_request_timeout_ms),
            header: Duration::from_millis(config.header_read_timeout_ms),
            idle: Duration::from_millis(config.idle_timeout_ms),
            max_age: (config.max_connection_age_ms > 0).then(|| Duration::from_millis(config.max_connection_age_ms)),
            max_age_grace: Duration::from_millis(config.drain_timeout_ms.max(config.max_deadline_ms)),
        }
    }
}

/// What to do when a deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Finish the requests in flight and close.
    Drain,
    /// Close now, counted with this reason, if any.
    Close(Option<&'static str>),
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// hyper has no timeout before it knows the HTTP version: silence or half a preface would keep
    /// the connection open forever.
    FirstRequest(Instant),
    Serving {
        until: Option<Instant>,
    },
    /// Draining until this time.
    Draining {
        until: Instant,
        reason: Option<&'static str>,
    },
}

/// Deadlines of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    timeouts: Timeouts,
    opened: Instant,
    phase: Phase,
    /// Next look at the idle time and the request head. Evaluated when it passes, not when a
    /// request starts or ends, which is much more frequent.
    activity: Instant,
    watch: Option<Watch>,
}

/// Progress of the reader at the last look.
#[derive(Debug)]
struct Watch {
    progress: u64,
    next: Instant,
}

impl Watch {
    fn start(connection: &ConnectionState, now: Instant) -> Self {
        let exceeded = connection.waiting.pressure() == Pressure::Exceeded;
        let interval = if exceeded { SHORT_PROGRESS_INTERVAL } else { PROGRESS_INTERVAL };
        Self { progress: connection.waiting.progress(), next: now + interval }
    }
}

impl Deadlines {
    pub(super) fn new(timeouts: Timeouts, now: Instant) -> Self {
        let phase = Phase::FirstRequest(now + timeouts.first_request);
        let activity = now + timeouts.header.min(timeouts.idle);
        Self { timeouts, opened: now, phase, activity, watch: None }
    }

    /// Returns the time of the next deadline.
    pub(super) fn next(&self) -> Instant {
        let phase = match self.phase {
            Phase::FirstRequest(at) | Phase::Draining { until: at, .. } => at,
            Phase::Serving { until } => until.unwrap_or(self.opened + FOREVER),
        };
        let watch = self.watch.as_ref().map_or(phase, |watch| watch.next);
        phase.min(self.activity).min(watch)
    }

    /// Starts to watch the reader if responses wait for it. Returns whether the next deadline may
    /// have changed.
    pub(super) fn watch(&mut self, connection: &ConnectionState, now: fn() -> Instant) -> bool {
        if self.watch.is_some() || connection.waiting.get() == 0 {
            return false;
        }
        if connection.waiting.get() <= WATCHED_BYTES && connection.waiting.pressure() == Pressure::Low {
            return false;
        }
        self.watch = Some(Watch::start(connection, now()));
        true
    }

    /// Limits an eviction.
    pub(super) fn evicted(&mut self, now: Instant) {
        self.phase = Phase::Draining { until: now + EVICTION_GRACE, reason: None };
    }

    /// Leaves the time to drain to the whole port.
    pub(super) fn port_drains(&mut self, now: Instant) {
        self.phase = Phase::Draining { until: now + FOREVER, reason: None };
    }

    /// Evaluates the deadlines that have passed.
    pub(super) fn due(&mut self, connection: &ConnectionState, now: Instant) -> Due {
        match self.phase {
            Phase::FirstRequest(at) if at <= now => {
                if !connection.has_request() {
                    return Due::Close(Some("no_request"));
                }
                let age = |age| self.opened + jitter::jittered(age, AGE_JITTER, jitter::random_unit);
                self.phase = Phase::Serving { until: self.timeouts.max_age.map(age) };
            }
            Phase::Serving { until: Some(at) } if at <= now => {
                self.phase = Phase::Draining { until: now + self.timeouts.max_age_grace, reason: Some("age") };
                return Due::Drain;
            }
            Phase::Draining { until, reason } if until <= now => return Due::Close(reason),
            Phase::Serving { until: None } if self.opened + FOREVER <= now => self.opened = now,
            Phase::FirstRequest(_) | Phase::Serving { .. } | Phase::Draining { .. } => {}
        }
        if self.watch.as_ref().is_some_and(|watch| watch.next <= now)
            && let Some(due) = self.check_progress(connection, now)
        {
            return due;
        }
        if self.activity <= now { self.check_activity(connection, now) } else { Due::Nothing }
    }

    fn check_progress(&mut self, connection: &ConnectionState, now: Instant) -> Option<Due> {
        let before = self.watch.take()?.progress;
        let (waiting, progress) = (&connection.waiting, connection.waiting.progress());
        if waiting.get() == 0 {
            return None;
        }
        if progress == before && waiting.pressure() != Pressure::Low {
            return Some(Due::Close(Some("waiting_bytes")));
        }
        self.watch = Some(Watch::start(connection, now));
        None
    }

    /// Checks the idle time and the time of the request head. Only HTTP/1 is bounded here: HTTP/2
    /// has PINGs, and its connections are evicted when others need their place.
    fn check_activity(&mut self, connection: &ConnectionState, now: Instant) -> Due {
        let Timeouts { header, idle, .. } = self.timeouts;
        self.activity = now + header.min(idle);
        if !connection.is_http1() || connection.is_upgraded() {
            return Due::Nothing;
        }
        if let Some(head) = connection.head_at() {
            if head + header <= now {
                return Due::Close(Some("slow_header"));
            }
            self.activity = head + header;
        } else if let Some(since) = connection.idle_at() {
            if since + idle <= now {
                return Due::Close(None);
            }
            self.activity = self.activity.min(since + idle);
        }
        Due::Nothing
    }
}
