//! What keeps one sick hop from taking the others with it: breakers, retries, deadlines, limits.

use super::{BREAKER, every_process, overview::BREAKER_STATES};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, timeseries, stat, state_timeline, unit},
    query::metric,
};

const TARGET: [&str; 2] = ["job", "target"];
const LIMITER: [&str; 2] = ["job", "limiter"];

pub(super) fn dashboard() -> Dashboard {
    let about = "What the layers around every hop decide, and why: breakers, balance, retries, deadlines, limits, faults.";
    Dashboard::new("resilience", "Palisade / 4 Resilience", about)
        .row("Breakers", breakers())
        .row("Endpoints", endpoints())
        .row("Retries", retries())
        .row("Deadlines", deadlines())
        .row("Limits and load shedding", limits())
        .row("Connections, tokens, faults", edge_limits())
}

fn breakers() -> [Panel; 7] {
    let reasons = ["job", "target", "breaker", "endpoint", "to", "reason"];
    [
        state_timeline("Breaker state")
            .description(
                "Every breaker, of targets and of single endpoints: green closed, red open, yellow half-open. Forced open is \
                    red, disabled is green.",
            )
            .remediation("The job calls, the target is sick. `PUT /breakers/{target}` on the caller's admin port sets one by hand.")
            .unit(unit::COUNT)
            .values(BREAKER_STATES)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.state").now().max_by(BREAKER)),
        timeseries("Transitions / min, and why")
            .description("Changes of state by the new one and the reason.")
            .remediation(
                "`failure_rate`, `consecutive`: errors. `slow_rate`: slowness. `probe_failed` again and again: the target \
                     does not recover. `manual`: an operator.",
            )
            .unit(unit::PER_MINUTE)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.transitions").rate().sum_by(reasons).per_minute())
            .sized(12, 8),
        timeseries("Rejected by open breaker / s")
            .description("Calls that were refused at once, to spare the target and the caller's time.")
            .remediation("Users get 503 for these, unless another endpoint takes them.")
            .unit(unit::REQUESTS)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.rejected").rate().sum_by(["job", "target", "breaker"]))
            .sized(12, 8),
        timeseries("Failure ratio in the window")
            .description("The share of failures that the breaker sees; nothing below its minimum of calls.")
            .remediation("At the threshold (50 % by default) it opens: before that, look at the target's errors.")
            .share(0.1, 0.5)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.breaker.failure_ratio").now().max_by(BREAKER))
            .sized(6, 8),
        timeseries("Slow ratio in the window")
            .description("The share of slow calls that the breaker sees; nothing below its minimum of calls.")
            .remediation("A target that is slow opens it as one that fails does: look at its p99.")
            .share(0.3, 0.8)
            .traces(Traces::SERVICE.slow())
            .query(metric("palisade.breaker.slow_ratio").now().max_by(BREAKER))
            .sized(6, 8),
        timeseries("Calls in the window")
            .description("How many calls the ratios beside are made of.")
            .remediation("Below the minimum of calls a breaker decides nothing, whatever the ratios.")
            .unit(unit::COUNT)
            .query(metric("palisade.breaker.window_calls").now().max_by(BREAKER))
            .sized(6, 8),
        stacked_timeseries("Calls by the breaker's verdict / s")
            .description("What breakers made of calls: success, failure, slow ones, and those that say nothing (neutral, cancelled, stale).")
            .remediation("Many `cancelled`: callers give up before the target answers.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.breaker.calls").rate().sum_by(["job", "target", "outcome"]))
            .sized(6, 8),
    ]
}

fn endpoints() -> [Panel; 6] {
    const REGISTRY: &str = "only where a registry is configured";
    [
        timeseries("Endpoints known")
            .description("Addresses of each target that calls may go to: those of the configuration, or those that its registry has told.")
            .remediation("0: the registry has told none since the start. Fewer than replicas run: some are not registered, or not ready.")
            .unit(unit::COUNT)
            .query(metric("palisade.balance.endpoints").now().max_by(["job", "instance", "target"])),
        timeseries("Answers of registries / min")
            .description("Times that DNS or etcd told the addresses of a target (ok), none (empty), or nothing (failed); and what it told of no use.")
            .remediation("`empty`, `failed`: the last known addresses stay. `refused`: somebody has put things there that are no addresses.")
            .unit(unit::PER_MINUTE)
            .query(
                metric("palisade.discovery.resolutions").rate().sum_by(["job", "target", "outcome"]).per_minute().may_be_absent(REGISTRY),
            )
            .query(
                metric("palisade.discovery.entries.refused").rate().sum_by(TARGET).per_minute().legend_prefix("refused").may_be_absent(REGISTRY),
            ),
        timeseries("Age of the addresses")
            .description("Since when the addresses of a target were last confirmed by its registry: by DNS as often as it is asked, by etcd all the time.")
            .remediation("Above a minute the registry is away: dead replicas are left alone by their breakers, but new ones are not found.")
            .unit(unit::SECONDS)
            .limits(60.0, 120.0)
            .runbook("DiscoveryStale")
            .query(metric("palisade.discovery.age").now().max_by(["job", "instance", "target"]).may_be_absent(REGISTRY)),
        timeseries("Registered")
            .description("1 while others can find a service in the registry; and how often it was registered or lost its entry, a minute.")
            .remediation("0: new callers do not find this replica. `lost` again and again: etcd is away, or too slow for the lease.")
            .unit(unit::NUMBER)
            .query(metric("palisade.registration.registered").now().max_by(["job", "instance", "service"]).may_be_absent(REGISTRY))
            .query(metric("palisade.registration.changes").rate().sum_by(["job", "service", "outcome"]).per_minute().may_be_absent(REGISTRY)),
        timeseries("Ejections / min")
            .description("Endpoints that failed. Enforced: calls then went elsewhere; not enforced: too many others were out already.")
            .remediation("One endpoint again and again: that replica is sick. `enforced=false`: most of them are.")
            .unit(unit::PER_MINUTE)
            .query(metric("palisade.breaker.ejections").rate().sum_by(["job", "target", "enforced"]).per_minute()),
        timeseries("Attempts for want of better / s")
            .description("Attempts at an endpoint that fails, because all do.")
            .remediation("No endpoint of the target is well: it is an outage, not a sick replica.")
            .unit(unit::REQUESTS)
            .limit(0.1)
            .query(metric("palisade.balance.panics").rate().sum_by(TARGET)),
    ]
    .map(|panel| panel.sized(8, 8))
}

fn retries() -> [Panel; 7] {
    let by = ["job", "grpc.target"];
    let started = |kind| metric("grpc.client.attempt.started").is("grpc.attempt.type", kind).rate().sum_by(by);
    let retried = || metric("grpc.client.call.retries");
    let again = retried().sum().rate().sum_by(by) / retried().count().rate().sum_by(by);
    [
        timeseries("Retries / s")
            .description("Attempts that were not the first.")
            .remediation("They hide the failures of a target from users, and add to its load.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(started("retry")),
        timeseries("Retry ratio")
            .description("Retries by first attempts.")
            .remediation("Above 20 % retries are a load of their own. Look at the target first, then at the budget.")
            .share(0.1, 0.2)
            .runbook("RetryStorm")
            .query(started("retry").share_of(&started("original"))),
        timeseries("Retry-budget tokens")
            .description("Tokens left. Failures take one, successes give a part of one back; below half there are no retries.")
            .remediation("Low: most calls to the target fail, and retrying would only add to it.")
            .unit(unit::NUMBER)
            .runbook("RetryStorm")
            .query(metric("palisade.retry.budget.tokens").now().sum_by(["job", "instance", "target"])),
        timeseries("Retry budget exhausted / s")
            .description("Retries that the budget did not allow.")
            .remediation("It does what it is for: cure the target, not the budget.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.retry.budget.exhausted").rate().sum_by(TARGET)),
        stacked_timeseries("Not tried again / s, by reason")
            .description("Failed attempts after which there was no other.")
            .remediation(
                "`attempts`: all failed. `tokens`, `concurrency`: the budget. `deadline`: no time left. `not_idempotent`, \
                     `committed`: it may not be repeated.",
            )
            .unit(unit::REQUESTS)
            .query(metric("palisade.retry.rejected").rate().sum_by(["job", "target", "reason"])),
        timeseries("Retries of a retried call")
            .description("How many further attempts those calls took that needed any.")
            .remediation("Above 1: the first retry fails too, so the pause is too short or the failure is no accident.")
            .unit(unit::NUMBER)
            .query(again.may_be_absent("no series before the first retry")),
        timeseries("Sent again, never arrived / s")
            .description("Calls that were sent again at once because they had certainly not arrived.")
            .remediation("Now and then: connections that end in old age. Many: a proxy or a server that resets.")
            .unit(unit::REQUESTS)
            .query(
                metric("grpc.client.call.transparent_retries").count().rate().sum_by(by).or_zero(&metric("palisade.retry.budget.tokens")),
            ),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn deadlines() -> [Panel; 3] {
    let left = |quantile| metric("palisade.deadline.remaining").quantile(quantile, ["job"]);
    [
        timeseries("Deadline left on arrival")
            .description(
                "How much time requests still have when they arrive, of those whose caller set a deadline: half of them, and \
                    the worst twentieth.",
            )
            .remediation("Near 0: callers hand over work that cannot be done in time. Find who is slow before this hop.")
            .unit(unit::SECONDS)
            .traces(Traces::SERVICE.slow())
            .query(left(0.5).legend_prefix("p50"))
            .query(left(0.05).legend_prefix("p5")),
        timeseries("Timeouts / s")
            .description("Calls whose deadline passed, and attempts that took too long, by target; `server` is our own answering.")
            .remediation("`attempt`: the target hangs now and then. `deadline`: it is slower than the caller can wait.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.request.timeouts").rate().sum_by(["job", "target", "kind"])),
        timeseries("Unreadable grpc-timeout / s")
            .description("Requests whose deadline could not be read; they get the server's own.")
            .remediation("A client that writes the header itself does it wrong.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.request.timeouts.malformed").rate().sum_by(["job"])),
    ]
}

fn limits() -> [Panel; 6] {
    let in_use = || metric("palisade.concurrency.in_use").now().sum_by(LIMITER);
    let limit = || metric("palisade.concurrency.limit").now().sum_by(LIMITER);
    [
        stacked_timeseries("Shed / s")
            .description("Requests refused to protect the process, by reason.")
            .remediation(
                "`queue_full`, `queue_timeout`: more load than the adaptive limit lets run. `concurrency`: the hard limit. \
                     `rate_limit`, `address_limit`: one caller.",
            )
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
        timeseries("Limits")
            .description("How many may be in flight: `adaptive` moves with the speed of handlers, `hard` and those of targets are fixed.")
            .remediation("An adaptive limit that falls: handlers slow one another down, or their store does.")
            .unit(unit::COUNT)
            .query(limit()),
        timeseries("In use")
            .description("How many are in flight, answers included.")
            .remediation("A target at its limit hangs; the bulkhead keeps it from taking all.")
            .unit(unit::COUNT)
            .query(in_use()),
        timeseries("Used / limit")
            .description("How full each limit is.")
            .remediation("At 90 % for long: more replicas, or find what got slow.")
            .share(0.7, 0.9)
            .runbook("LoadShedding")
            .query(in_use() / limit()),
        timeseries("Waiting")
            .description("Requests that wait for a place under the adaptive limit.")
            .remediation("A queue that stands is only delay: the limit or the load is wrong.")
            .unit(unit::COUNT)
            .query(metric("palisade.queue.waiting").now().sum_by(LIMITER)),
        timeseries("Queue wait p95 / p99")
            .description("How long those waited who could not run at once.")
            .remediation("It is part of each such request's duration.")
            .unit(unit::SECONDS)
            .limits(0.05, 0.25)
            .query(metric("palisade.queue.wait").quantile(0.95, LIMITER).legend_prefix("p95"))
            .query(metric("palisade.queue.wait").quantile(0.99, LIMITER).legend_prefix("p99")),
    ]
}

fn edge_limits() -> [Panel; 11] {
    const ISSUERS: &str = "only where an issuer's keys are read from an address";
    let counted = |name: &str, label: &'static str| metric(name).rate().sum_by(["job", label]).or_zero(&every_process());
    [
        timeseries("Connections cut / s")
            .description("Connections and streams that a limit put an end to, by reason; `age` is the normal end of a long one.")
            .remediation("`address`: too many of one client. `drain`: requests outlast a shutdown. The stalls: clients that do not read.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.connections.cut", "reason")),
        timeseries("Key sets read / s")
            .description("Reads of the key sets of issuers, by outcome. While they fail the known keys go on to serve.")
            .remediation("`failed`: new keys of that issuer are refused; its address or file is wrong or away.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.auth.key_set.reads", "outcome")),
        stacked_timeseries("HTTP calls made / s")
            .description(
                "Calls for the key sets of issuers, by server and status, with their retries as one; without a status there was no answer.",
            )
            .remediation(
                "5xx, or none: see the key sets beside. Redirects are not followed: the address in the configuration is not the right one.",
            )
            .unit(unit::REQUESTS)
            .query(
                metric("http.client.request.duration")
                    .count()
                    .rate()
                    .sum_by(["job", "server.address", "http.response.status_code", "error.type"])
                    .may_be_absent(ISSUERS),
            ),
        timeseries("HTTP attempts p99")
            .description("How long single attempts at HTTP calls take, the first of a call and further ones.")
            .remediation("Near 2 s: the issuer hangs, and whoever brings a token with a key that is not known yet waits as long.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(metric("palisade.http.client.attempt.duration").quantile(0.99, ["job", "target", "attempt.type"]).may_be_absent(ISSUERS)),
        timeseries("Revocation lists read / s")
            .description("Reads of the list of revoked tokens, by outcome. While they fail the old list stays.")
            .remediation("`failed`: tokens revoked since then are still accepted.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.auth.revocations.reads", "outcome")),
        timeseries("Revoked tokens / s")
            .description("Requests refused because their token was revoked.")
            .remediation("A client has not noticed, or somebody has a token that is not theirs.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.auth.tokens.revoked").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Certificates end in")
            .description("Time left of each certificate in use: `server` is the one that the port shows, others are shown to that upstream.")
            .remediation("Below two weeks: have it issued again. The new files are read while the services run.")
            .unit(unit::SECONDS)
            .query(
                (-1.0 * metric("palisade.tls.certificate.expiry").now().min_by(["job", "certificate"]).age())
                    .may_be_absent("hops without TLS have none"),
            ),
        timeseries("Certificates read / s")
            .description("Times that changed certificates were read, by outcome.")
            .remediation("`failed`: the old certificate stays, and will end. The log names the file.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.tls.reloads", "outcome")),
        stat("Fault rules active")
            .description("Rules that inject faults on purpose; 0 on a normal day.")
            .remediation("`GET /faults` on the admin port shows them, `DELETE /faults` ends them.")
            .unit(unit::COUNT)
            .limit(1.0)
            .query(metric("palisade.faults.active").now().sum_by(["job"])),
        timeseries("Faults injected / s")
            .description("Requests that a fault was injected into, by kind.")
            .remediation("Expected while somebody tests; else end them as above.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.faults.injected").rate().sum_by(["job", "kind"])),
        timeseries("Panics / min")
            .description("Handlers that panicked; each is one answer of 500.")
            .remediation("A bug: the log has the message and the place.")
            .unit(unit::PER_MINUTE)
            .limit(0.1)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.panics").rate().sum_by(["job"]).per_minute().or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(6, 8))
}
