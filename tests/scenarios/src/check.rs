//! Compares the observations with the expectations.

use std::collections::BTreeMap;

use palisade_middleware::grpc_status;

use crate::{
    format::{ALL, ExpectedCalls, ExpectedServer, Range, Scenario},
    observed::{CompletedCall, Observations, ServerLog},
    stack::Stack,
};

/// Lateness of timers with a paused clock, which count whole milliseconds.
const SLACK_MS: u64 = 2;
/// Lateness of a stack that runs in real time.
const REAL_SLACK_MS: u64 = 400;

/// Name of the errors that an expectation does not list.
const FAILED: &str = "FAILED";

/// Returns the expectations that were not met.
pub(crate) fn check(scenario: &Scenario, observed: &Observations, stack: &dyn Stack) -> Vec<String> {
    let mut check = Check { slack: if stack.has_own_clock() { REAL_SLACK_MS } else { SLACK_MS }, wrong: Vec::new() };
    let expect = &scenario.expect;
    for (number, (expected, calls)) in expect.calls.iter().zip(&observed.calls).enumerate() {
        check.calls(&format!("calls {number}"), expected, calls);
    }
    for (name, expected) in &expect.servers {
        let mut log = ServerLog::default();
        observed.servers.iter().filter(|(server, _)| name == ALL || *server == name).for_each(|(_, one)| log.add(one));
        check.server(name, expected, &log);
    }
    if let Some(expected) = expect.stopped_ms {
        check.time("stopped", expected, observed.stopped_ms.unwrap_or(u64::MAX));
    }
    if stack.has_our_metrics() {
        for (series, expected) in &expect.metrics {
            check.count(series, *expected, metric(&observed.metrics, series));
        }
    }
    check.wrong
}

struct Check {
    slack: u64,
    wrong: Vec<String>,
}

impl Check {
    fn count(&mut self, what: &str, expected: Range, value: u64) {
        if !expected.contains(value) {
            self.wrong.push(format!("{what}: {value}, expected {expected}"));
        }
    }

    fn time(&mut self, what: &str, expected: Range, ms: u64) {
        if !expected.contains_ms(ms, self.slack) {
            self.wrong.push(format!("{what}: {ms} ms, expected {expected}"));
        }
    }

    fn calls(&mut self, group: &str, expected: &ExpectedCalls, calls: &[CompletedCall]) {
        let mut results: BTreeMap<&str, u64> = BTreeMap::new();
        for call in calls {
            let name = grpc_status::name(call.code);
            let listed = name == "OK" || expected.results.contains_key(name) || !expected.results.contains_key(FAILED);
            *results.entry(if listed { name } else { FAILED }).or_default() += 1;
        }
        let before = self.wrong.len();
        for (name, range) in &expected.results {
            self.count(&format!("{group}, {name}"), *range, results.remove(name.as_str()).unwrap_or(0));
        }
        for (name, count) in results {
            self.wrong.push(format!("{group}, {name}: {count}, expected none"));
        }
        if self.wrong.len() > before
            && let Some(call) = calls.iter().find(|call| call.code != tonic::Code::Ok)
        {
            self.wrong.push(format!("{group}, first error: {} {}", grpc_status::name(call.code), call.message));
        }
        for (number, call) in calls.iter().enumerate() {
            if let Some(range) = expected.elapsed_ms {
                self.time(&format!("{group}, call {number}"), range, call.ended_ms - call.started_ms);
            }
            if let Some(pushback) = expected.pushback.as_deref().filter(|_| call.code != tonic::Code::Ok) {
                let value = call.pushback.as_deref().unwrap_or("none");
                if value != pushback && (pushback != "some" || value == "none") {
                    self.wrong.push(format!("{group}, call {number}: pushback {value}, expected {pushback}"));
                }
            }
        }
        if let Some(range) = expected.ended_ms {
            self.time(&format!("{group}, end"), range, calls.iter().map(|call| call.ended_ms).max().unwrap_or(0));
        }
        let sequence: Vec<_> = calls.iter().map(|call| grpc_status::name(call.code)).collect();
        if !expected.sequence.is_empty() && sequence != expected.sequence {
            self.wrong.push(format!("{group}: {sequence:?}, expected {:?}", expected.sequence));
        }
    }

    fn server(&mut self, name: &str, expected: &ExpectedServer, log: &ServerLog) {
        let counts = [
            ("received", expected.received, log.calls.len() as u64),
            ("cancelled", expected.cancelled, log.cancelled.into()),
            ("concurrent", expected.max_concurrent, log.max_concurrent.into()),
            ("connections", expected.connections, log.connections.into()),
        ];
        for (what, range, value) in counts {
            if let Some(range) = range {
                self.count(&format!("{name}, {what}"), range, value);
            }
        }
        for period in &expected.periods {
            let received = log.calls.iter().filter(|call| (period.from_ms..period.until_ms).contains(&call.at_ms)).count();
            self.count(&format!("{name}, received in {}..{} ms", period.from_ms, period.until_ms), period.received, received as u64);
        }
        if let Some(burst) = &expected.burst {
            let times: Vec<_> = log.calls.iter().map(|call| call.at_ms).filter(|at| *at >= burst.from_ms).collect();
            let within = |start: u64| times.iter().filter(|at| (start..start + burst.window_ms).contains(*at)).count();
            let largest = times.iter().map(|start| within(*start)).max().unwrap_or(0);
            self.count(&format!("{name}, received within {} ms", burst.window_ms), burst.received, largest as u64);
        }
        let attempts: Vec<_> = log.calls.iter().map(|call| call.previous_attempts).collect();
        if !expected.previous_attempts.is_empty() && attempts != expected.previous_attempts {
            self.wrong.push(format!("{name}: previous attempts {attempts:?}, expected {:?}", expected.previous_attempts));
        }
        if !expected.gaps_ms.is_empty() {
            let gaps: Vec<_> = log.calls.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
            self.count(&format!("{name}, gaps"), Range::exactly(expected.gaps_ms.len() as u64), gaps.len() as u64);
            for (number, (range, gap)) in expected.gaps_ms.iter().zip(gaps).enumerate() {
                self.time(&format!("{name}, gap {number}"), *range, gap);
            }
        }
        if !expected.timeouts_ms.is_empty() {
            self.count(&format!("{name}, received"), Range::exactly(expected.timeouts_ms.len() as u64), log.calls.len() as u64);
        }
        let each = expected.timeouts_ms.iter().copied().chain(expected.timeout_ms.into_iter().cycle());
        for (number, (call, range)) in log.calls.iter().zip(each).enumerate() {
            match call.timeout_ms {
                Some(timeout) => self.count(&format!("{name}, timeout of call {number}"), range, timeout),
                None => self.wrong.push(format!("{name}, call {number}: no timeout")),
            }
        }
    }
}

/// Sum of the series whose text begins with `name{`, or equals the name, and that have all labels.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole numbers")]
fn metric(text: &str, series: &str) -> u64 {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: Vec<_> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let matching = lines.filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label.trim())))
    });
    let values = matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>().round() as u64
}
