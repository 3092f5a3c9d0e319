//! gRPC from both sides: what products and orders answer, and what their callers see of it.

use super::{FAULTS, answered, call_errors, hop_tax, made};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, timeseries, heatmap, unit},
    query::metric,
};

const METHOD: [&str; 2] = ["job", "rpc.method"];
const TARGET: [&str; 2] = ["job", "server.address"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Each gRPC hop from both sides. Where the caller sees errors or time that the server does not, the hop itself is sick.";
    Dashboard::new("grpc", "Palisade / 3 gRPC", about)
        .row("Answered", server())
        .row("Made: whole calls, retries included", client())
        .row("Made: single attempts", attempts())
}

fn server() -> [Panel; 6] {
    [
        timeseries("Calls / s by method")
            .description("Calls answered by method; `_OTHER` is no method of ours.")
            .remediation("`_OTHER`: somebody speaks another contract. A method that jumps: a caller that loops, or retries.")
            .unit(unit::REQUESTS)
            .traces(Traces::METHOD)
            .query(answered().count().rate().sum_by(METHOD)),
        stacked_timeseries("Calls / s by status")
            .description("Calls answered by gRPC status.")
            .remediation("`UNAVAILABLE`: a store is down, or load is shed. `DEADLINE_EXCEEDED`: too slow. `INTERNAL`: a bug, in the log.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(answered().count().rate().sum_by(["job", "rpc.status_code"])),
        timeseries("Server error ratio by method")
            .description("Share of calls that failed by the server's own fault; a flat 0 is none.")
            .remediation("One method: its query or its upstream. All methods of a job: its store.")
            .errors()
            .traces(Traces::METHOD.failed())
            .runbook("ErrorBudgetBurnFast")
            .query(call_errors(answered, METHOD)),
        timeseries("Server p95 by method")
            .description("How long answering takes, to the trailers.")
            .remediation("Compare with the stores' p95: what is left is ours.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::METHOD.slow())
            .query(answered().quantile(0.95, METHOD)),
        heatmap("Latency heatmap")
            .description("How many calls took how long, of all methods.")
            .remediation("A band that stands at one height is a timeout or a lock.")
            .unit(unit::SECONDS)
            .query(answered().bucket().rate().sum_by(["le"])),
        timeseries("Active calls")
            .description("Calls that are being answered.")
            .remediation("If it rises and the rate does not, the store does not keep up.")
            .unit(unit::COUNT)
            .traces(Traces::METHOD.slow())
            .query(metric("palisade.rpc.server.active_calls").now().sum_by(METHOD)),
    ]
}

fn client() -> [Panel; 6] {
    [
        timeseries("Client calls / s by target")
            .description("Calls made by target: one for each, however often it was tried.")
            .remediation("Compare with the calls answered: what is missing was refused on the caller's side.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(made().count().rate().sum_by(TARGET)),
        timeseries("Client error ratio by target")
            .description("Share of calls that failed in the end, by the target's fault or on the way to it.")
            .remediation("Errors here and none on the server: the network, a deadline, or an open breaker.")
            .errors()
            .traces(Traces::SERVICE.failed())
            .query(call_errors(made, TARGET)),
        stacked_timeseries("Client failures / s by status")
            .description("Calls that failed in the end, by status.")
            .remediation("`UNAVAILABLE`: breaker or connection. `DEADLINE_EXCEEDED`: no answer in time.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE.failed())
            .query(
                made()
                    .count()
                    .matches("rpc.status_code", FAULTS)
                    .rate()
                    .sum_by(["job", "server.address", "rpc.status_code"])
                    .or_zero(&made().count()),
            ),
        timeseries("Client p99 by method")
            .description("How long calls take for who makes them, with retries and pauses.")
            .remediation("High here and low on the server: retries, a full bulkhead, or the network.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::METHOD.slow())
            .query(made().quantile(0.99, METHOD)),
        timeseries("Hop tax by method")
            .description("p95 of calls made minus p95 of calls answered. Needs caller and server among the chosen jobs.")
            .remediation("Some milliseconds are the network and both stacks; more are retries or queues.")
            .unit(unit::SECONDS)
            .query(hop_tax()),
        timeseries("Client p50 by target")
            .description("What a typical call costs its caller.")
            .remediation("If it rises slowly, the target gets fuller; if it jumps, something changed: see the blue marks.")
            .unit(unit::SECONDS)
            .traces(Traces::SERVICE)
            .query(made().quantile(0.5, TARGET)),
    ]
}

fn attempts() -> [Panel; 3] {
    let by = ["job", "grpc.target"];
    let started = || metric("grpc.client.attempt.started");
    let first = started().is("grpc.attempt.type", "original").rate().sum_by(by);
    [
        timeseries("Attempts per call")
            .description("1 without retries. What is above is the load that retries add to the target.")
            .remediation("Above 1.2 retries are a load of their own: the budget should stop them.")
            .unit(unit::NUMBER)
            .limits(1.1, 1.2)
            .runbook("RetryStorm")
            .query(started().rate().sum_by(by) / first),
        timeseries("Attempt p99 by target")
            .description("How long single attempts take.")
            .remediation("Near the attempt timeout: the target hangs, it does not fail.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(metric("grpc.client.attempt.duration").quantile(0.99, by)),
        stacked_timeseries("Attempts / s by status")
            .description("What single attempts came to, those that were then retried included.")
            .remediation("Failures here and none above: retries hide them from users, for now.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(metric("grpc.client.attempt.duration").count().rate().sum_by(["job", "grpc.target", "grpc.status"])),
    ]
}
