//! gRPC dashboard: server-side and client-side view of the calls to products and orders.

use super::{SERVER_ERRORS, call_errors, grpc_client_calls, grpc_server_calls, hop_overhead};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, heatmap, stacked_timeseries, timeseries, unit},
    query::metric,
};

const METHOD: [&str; 2] = ["job", "rpc.method"];
const TARGET: [&str; 2] = ["job", "server.address"];

pub(super) fn dashboard() -> Dashboard {
    let about = "gRPC calls measured by server and client. Errors or latency seen only by the client come from the hop itself.";
    Dashboard::new("grpc", "Palisade / 04 gRPC", about)
        .row("gRPC server", server())
        .row("gRPC client calls", client())
        .row("gRPC client attempts", attempts())
}

fn server() -> [Panel; 6] {
    [
        timeseries("Calls / s by method")
            .description("Served calls by method. `_OTHER` stands for unknown methods.")
            .remediation("`_OTHER`: a client uses another API version. A sudden rise of one method: a client in a loop, or retries.")
            .unit(unit::REQUESTS)
            .traces(Traces::METHOD)
            .query(grpc_server_calls().count().rate().sum_by(METHOD)),
        stacked_timeseries("Calls / s by status")
            .description("Served calls by gRPC status.")
            .remediation("`UNAVAILABLE`: a store is down, or load is shed. `DEADLINE_EXCEEDED`: too slow. `INTERNAL`: a bug, see the log.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(grpc_server_calls().count().rate().sum_by(["job", "rpc.status_code"])),
        timeseries("Server error ratio by method")
            .description("Share of calls with a server error. A flat 0 means no errors.")
            .remediation("One method: check its query or upstream. All methods of a job: check its store.")
            .errors()
            .traces(Traces::METHOD.failed())
            .runbook("ErrorBudgetBurnFast")
            .query(call_errors(grpc_server_calls, METHOD)),
        timeseries("Server p95 by method")
            .description("95th percentile of call durations, measured by the server up to the trailers.")
            .remediation("Compare with the stores' p95: the difference is spent in the service.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::METHOD.slow())
            .query(grpc_server_calls().quantile(0.95, METHOD)),
        heatmap("Latency heatmap")
            .description("Distribution of call durations, all methods.")
            .remediation("A band at a constant height: a timeout or a lock.")
            .unit(unit::SECONDS)
            .query(grpc_server_calls().bucket().rate().sum_by(["le"])),
        timeseries("Active calls")
            .description("Calls in flight.")
            .remediation("Rises while the call rate does not: the store is slow.")
            .unit(unit::COUNT)
            .traces(Traces::METHOD.slow())
            .query(metric("palisade.rpc.server.active_calls").now().sum_by(METHOD)),
    ]
}

fn client() -> [Panel; 6] {
    [
        timeseries("Client calls / s by target")
            .description("Client calls by target. A call counts once, whatever its number of attempts.")
            .remediation("Compare with the served calls: the difference was rejected on the client side.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(grpc_client_calls().count().rate().sum_by(TARGET)),
        timeseries("Client error ratio by target")
            .description("Share of client calls with a server or transport error after all retries.")
            .remediation("Errors here but none on the server: network, deadline, or an open breaker.")
            .errors()
            .traces(Traces::SERVICE.failed_calls())
            .query(call_errors(grpc_client_calls, TARGET)),
        stacked_timeseries("Client failures / s by status")
            .description("Client calls that failed after all retries, by status.")
            .remediation("`UNAVAILABLE`: breaker or connection. `DEADLINE_EXCEEDED`: no response in time.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE.failed_calls())
            .query(
                grpc_client_calls()
                    .count()
                    .matches("rpc.status_code", SERVER_ERRORS)
                    .rate()
                    .sum_by(["job", "server.address", "rpc.status_code"])
                    .or_zero(&grpc_client_calls().count()),
            ),
        timeseries("Client p99 by method")
            .description("99th percentile of call durations, measured by the client, including retries and backoff.")
            .remediation("High here but low on the server: retries, a full bulkhead, or the network.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::METHOD.slow())
            .query(grpc_client_calls().quantile(0.99, METHOD)),
        timeseries("Hop overhead by method")
            .description("Client p95 minus server p95. Requires client and server among the selected jobs.")
            .remediation("A few milliseconds: network and middleware. More: retries or queueing.")
            .unit(unit::SECONDS)
            .query(hop_overhead()),
        timeseries("Client p50 by target")
            .description("Median call duration, measured by the client.")
            .remediation("Slow rise: the target saturates. Step: compare with the deployments (blue annotations).")
            .unit(unit::SECONDS)
            .traces(Traces::SERVICE)
            .query(grpc_client_calls().quantile(0.5, TARGET)),
    ]
}

fn attempts() -> [Panel; 3] {
    let by = ["job", "grpc.target"];
    let started = || metric("grpc.client.attempt.started");
    let first = started().is("grpc.attempt.type", "original").rate().sum_by(by);
    [
        timeseries("Attempts per call")
            .description("1 without retries. The excess is the load that retries add to the target.")
            .remediation("Above 1.2 retries amplify the load. The retry budget should stop them.")
            .unit(unit::NUMBER)
            .limits(1.1, 1.2)
            .runbook("RetryStorm")
            .query(started().rate().sum_by(by) / first),
        timeseries("Attempt p99 by target")
            .description("99th percentile of attempt durations.")
            .remediation("Near the attempt timeout: the target hangs instead of failing.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(metric("grpc.client.attempt.duration").quantile(0.99, by)),
        stacked_timeseries("Attempts / s by status")
            .description("Attempts by status, including those that were retried.")
            .remediation("Failures here but none in the calls above: retries mask them.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(metric("grpc.client.attempt.duration").count().rate().sum_by(["job", "grpc.target", "grpc.status"])),
    ]
}
