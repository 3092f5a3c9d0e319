//! What keeps one sick hop from taking the others with it: breakers, retries, deadlines, limits.

use super::{BREAKER, every_process, overview::BREAKER_STATES};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, areas, graph, number, timeline, unit},
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
        .row("Connections, tokens, faults", doors())
}

fn breakers() -> [Panel; 7] {
    let reasons = ["job", "target", "breaker", "endpoint", "to", "reason"];
    [
        timeline("Breaker state")
            .tells(
                "Every breaker, of targets and of single endpoints: green closed, red open, yellow half-open. Forced open is \
                    red, disabled is green.",
            )
            .if_bad("The job calls, the target is sick. `PUT /breakers/{target}` on the caller's admin port sets one by hand.")
            .unit(unit::COUNT)
            .values(BREAKER_STATES)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.state").now().max_by(BREAKER)),
        graph("Transitions / min, and why")
            .tells("Changes of state by the new one and the reason.")
            .if_bad(
                "`failure_rate`, `consecutive`: errors. `slow_rate`: slowness. `probe_failed` again and again: the target \
                     does not recover. `manual`: an operator.",
            )
            .unit(unit::PER_MINUTE)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.transitions").rate().sum_by(reasons).per_minute())
            .sized(12, 8),
        graph("Rejected by open breaker / s")
            .tells("Calls that were refused at once, to spare the target and the caller's time.")
            .if_bad("Users get 503 for these, unless another endpoint takes them.")
            .unit(unit::REQUESTS)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.rejected").rate().sum_by(["job", "target", "breaker"]))
            .sized(12, 8),
        graph("Failure ratio in the window")
            .tells("The share of failures that the breaker sees; nothing below its minimum of calls.")
            .if_bad("At the threshold (50 % by default) it opens: before that, look at the target's errors.")
            .share(0.1, 0.5)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.breaker.failure_ratio").now().max_by(BREAKER))
            .sized(6, 8),
        graph("Slow ratio in the window")
            .tells("The share of slow calls that the breaker sees; nothing below its minimum of calls.")
            .if_bad("A target that is slow opens it as one that fails does: look at its p99.")
            .share(0.3, 0.8)
            .traces(Traces::SERVICE.slow())
            .query(metric("palisade.breaker.slow_ratio").now().max_by(BREAKER))
            .sized(6, 8),
        graph("Calls in the window")
            .tells("How many calls the ratios beside are made of.")
            .if_bad("Below the minimum of calls a breaker decides nothing, whatever the ratios.")
            .unit(unit::COUNT)
            .query(metric("palisade.breaker.window_calls").now().max_by(BREAKER))
            .sized(6, 8),
        areas("Calls by the breaker's verdict / s")
            .tells("What breakers made of calls: success, failure, slow ones, and those that say nothing (neutral, cancelled, stale).")
            .if_bad("Many `cancelled`: callers give up before the target answers.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.breaker.calls").rate().sum_by(["job", "target", "outcome"]))
            .sized(6, 8),
    ]
}

fn endpoints() -> [Panel; 6] {
    const REGISTRY: &str = "only where a registry is configured";
    [
        graph("Endpoints known")
            .tells("Addresses of each target that calls may go to: those of the configuration, or those that its registry has told.")
            .if_bad("0: the registry has told none since the start. Fewer than replicas run: some are not registered, or not ready.")
            .unit(unit::COUNT)
            .query(metric("palisade.balance.endpoints").now().max_by(["job", "instance", "target"])),
        graph("Answers of registries / min")
            .tells("Times that DNS or etcd told the addresses of a target (ok), none (empty), or nothing (failed); and what it told of no use.")
            .if_bad("`empty`, `failed`: the last known addresses stay. `refused`: somebody has put things there that are no addresses.")
            .unit(unit::PER_MINUTE)
            .query(
                metric("palisade.discovery.resolutions").rate().sum_by(["job", "target", "outcome"]).per_minute().sparse(REGISTRY),
            )
            .query(
                metric("palisade.discovery.entries.refused").rate().sum_by(TARGET).per_minute().called("refused").sparse(REGISTRY),
            ),
        graph("Age of the addresses")
            .tells("Since when the addresses of a target were last confirmed by its registry: by DNS as often as it is asked, by etcd all the time.")
            .if_bad("Above a minute the registry is away: dead replicas are left alone by their breakers, but new ones are not found.")
            .unit(unit::SECONDS)
            .limits(60.0, 120.0)
            .runbook("DiscoveryStale")
            .query(metric("palisade.discovery.age").now().max_by(["job", "instance", "target"]).sparse(REGISTRY)),
        graph("Registered")
            .tells("1 while others can find a service in the registry; and how often it was registered or lost its entry, a minute.")
            .if_bad("0: new callers do not find this replica. `lost` again and again: etcd is away, or too slow for the lease.")
            .unit(unit::NUMBER)
            .query(metric("palisade.registration.registered").now().max_by(["job", "instance", "service"]).sparse(REGISTRY))
            .query(metric("palisade.registration.changes").rate().sum_by(["job", "service", "outcome"]).per_minute().sparse(REGISTRY)),
        graph("Ejections / min")
            .tells("Endpoints that failed. Enforced: calls then went elsewhere; not enforced: too many others were out already.")
            .if_bad("One endpoint again and again: that replica is sick. `enforced=false`: most of them are.")
            .unit(unit::PER_MINUTE)
            .query(metric("palisade.breaker.ejections").rate().sum_by(["job", "target", "enforced"]).per_minute()),
        graph("Attempts for want of better / s")
            .tells("Attempts at an endpoint that fails, because all do.")
            .if_bad("No endpoint of the target is well: it is an outage, not a sick replica.")
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
        graph("Retries / s")
            .tells("Attempts that were not the first.")
            .if_bad("They hide the failures of a target from users, and add to its load.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(started("retry")),
        graph("Retry ratio")
            .tells("Retries by first attempts.")
            .if_bad("Above 20 % retries are a load of their own. Look at the target first, then at the budget.")
            .share(0.1, 0.2)
            .runbook("RetryStorm")
            .query(started("retry").share_of(&started("original"))),
        graph("Retry-budget tokens")
            .tells("Tokens left. Failures take one, successes give a part of one back; below half there are no retries.")
            .if_bad("Low: most calls to the target fail, and retrying would only add to it.")
            .unit(unit::NUMBER)
            .runbook("RetryStorm")
            .query(metric("palisade.retry.budget.tokens").now().sum_by(["job", "instance", "target"])),
        graph("Retry budget exhausted / s")
            .tells("Retries that the budget did not allow.")
            .if_bad("It does what it is for: cure the target, not the budget.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.retry.budget.exhausted").rate().sum_by(TARGET)),
        areas("Not tried again / s, by reason")
            .tells("Failed attempts after which there was no other.")
            .if_bad(
                "`attempts`: all failed. `tokens`, `concurrency`: the budget. `deadline`: no time left. `not_idempotent`, \
                     `committed`: it may not be repeated.",
            )
            .unit(unit::REQUESTS)
            .query(metric("palisade.retry.rejected").rate().sum_by(["job", "target", "reason"])),
        graph("Retries of a retried call")
            .tells("How many further attempts those calls took that needed any.")
            .if_bad("Above 1: the first retry fails too, so the pause is too short or the failure is no accident.")
            .unit(unit::NUMBER)
            .query(again.sparse("no series before the first retry")),
        graph("Sent again, never arrived / s")
            .tells("Calls that were sent again at once because they had certainly not arrived.")
            .if_bad("Now and then: connections that end in old age. Many: a proxy or a server that resets.")
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
        graph("Deadline left on arrival")
            .tells(
                "How much time requests still have when they arrive, of those whose caller set a deadline: half of them, and \
                    the worst twentieth.",
            )
            .if_bad("Near 0: callers hand over work that cannot be done in time. Find who is slow before this hop.")
            .unit(unit::SECONDS)
            .traces(Traces::SERVICE.slow())
            .query(left(0.5).called("p50"))
            .query(left(0.05).called("p5")),
        graph("Timeouts / s")
            .tells("Calls whose deadline passed, and attempts that took too long, by target; `server` is our own answering.")
            .if_bad("`attempt`: the target hangs now and then. `deadline`: it is slower than the caller can wait.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.request.timeouts").rate().sum_by(["job", "target", "kind"])),
        graph("Unreadable grpc-timeout / s")
            .tells("Requests whose deadline could not be read; they get the server's own.")
            .if_bad("A client that writes the header itself does it wrong.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.request.timeouts.malformed").rate().sum_by(["job"])),
    ]
}

fn limits() -> [Panel; 6] {
    let in_use = || metric("palisade.concurrency.in_use").now().sum_by(LIMITER);
    let limit = || metric("palisade.concurrency.limit").now().sum_by(LIMITER);
    [
        areas("Shed / s")
            .tells("Requests refused to protect the process, by reason.")
            .if_bad(
                "`queue_full`, `queue_timeout`: more load than the adaptive limit lets run. `concurrency`: the hard limit. \
                     `rate_limit`, `address_limit`: one caller.",
            )
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
        graph("Limits")
            .tells("How many may be in flight: `adaptive` moves with the speed of handlers, `hard` and those of targets are fixed.")
            .if_bad("An adaptive limit that falls: handlers slow one another down, or their store does.")
            .unit(unit::COUNT)
            .query(limit()),
        graph("In use")
            .tells("How many are in flight, answers included.")
            .if_bad("A target at its limit hangs; the bulkhead keeps it from taking all.")
            .unit(unit::COUNT)
            .query(in_use()),
        graph("Used / limit")
            .tells("How full each limit is.")
            .if_bad("At 90 % for long: more replicas, or find what got slow.")
            .share(0.7, 0.9)
            .runbook("LoadShedding")
            .query(in_use() / limit()),
        graph("Waiting")
            .tells("Requests that wait for a place under the adaptive limit.")
            .if_bad("A queue that stands is only delay: the limit or the load is wrong.")
            .unit(unit::COUNT)
            .query(metric("palisade.queue.waiting").now().sum_by(LIMITER)),
        graph("Queue wait p95 / p99")
            .tells("How long those waited who could not run at once.")
            .if_bad("It is part of each such request's duration.")
            .unit(unit::SECONDS)
            .limits(0.05, 0.25)
            .query(metric("palisade.queue.wait").quantile(0.95, LIMITER).called("p95"))
            .query(metric("palisade.queue.wait").quantile(0.99, LIMITER).called("p99")),
    ]
}

fn doors() -> [Panel; 11] {
    const ISSUERS: &str = "only where an issuer's keys are read from an address";
    let counted = |name: &str, label: &'static str| metric(name).rate().sum_by(["job", label]).or_zero(&every_process());
    [
        graph("Connections cut / s")
            .tells("Connections and streams that a limit put an end to, by reason; `age` is the normal end of a long one.")
            .if_bad("`address`: too many of one client. `drain`: requests outlast a shutdown. The stalls: clients that do not read.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.connections.cut", "reason")),
        graph("Key sets read / s")
            .tells("Reads of the key sets of issuers, by outcome. While they fail the known keys go on to serve.")
            .if_bad("`failed`: new keys of that issuer are refused; its address or file is wrong or away.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.auth.key_set.reads", "outcome")),
        areas("HTTP calls made / s")
            .tells(
                "Calls for the key sets of issuers, by server and status, with their retries as one; without a status there was no answer.",
            )
            .if_bad(
                "5xx, or none: see the key sets beside. Redirects are not followed: the address in the configuration is not the right one.",
            )
            .unit(unit::REQUESTS)
            .query(
                metric("http.client.request.duration")
                    .count()
                    .rate()
                    .sum_by(["job", "server.address", "http.response.status_code", "error.type"])
                    .sparse(ISSUERS),
            ),
        graph("HTTP attempts p99")
            .tells("How long single attempts at HTTP calls take, the first of a call and further ones.")
            .if_bad("Near 2 s: the issuer hangs, and whoever brings a token with a key that is not known yet waits as long.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(metric("palisade.http.client.attempt.duration").quantile(0.99, ["job", "target", "attempt.type"]).sparse(ISSUERS)),
        graph("Revocation lists read / s")
            .tells("Reads of the list of revoked tokens, by outcome. While they fail the old list stays.")
            .if_bad("`failed`: tokens revoked since then are still accepted.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.auth.revocations.reads", "outcome")),
        graph("Revoked tokens / s")
            .tells("Requests refused because their token was revoked.")
            .if_bad("A client has not noticed, or somebody has a token that is not theirs.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.auth.tokens.revoked").rate().sum_by(["job"]).or_zero(&every_process())),
        graph("Certificates end in")
            .tells("Time left of each certificate in use: `server` is the one that the port shows, others are shown to that upstream.")
            .if_bad("Below two weeks: have it issued again. The new files are read while the services run.")
            .unit(unit::SECONDS)
            .query(
                (-1.0 * metric("palisade.tls.certificate.expiry").now().min_by(["job", "certificate"]).ago())
                    .sparse("hops without TLS have none"),
            ),
        graph("Certificates read / s")
            .tells("Times that changed certificates were read, by outcome.")
            .if_bad("`failed`: the old certificate stays, and will end. The log names the file.")
            .unit(unit::PER_SECOND)
            .query(counted("palisade.tls.reloads", "outcome")),
        number("Fault rules active")
            .tells("Rules that inject faults on purpose; 0 on a normal day.")
            .if_bad("`GET /faults` on the admin port shows them, `DELETE /faults` ends them.")
            .unit(unit::COUNT)
            .limit(1.0)
            .query(metric("palisade.faults.active").now().sum_by(["job"])),
        graph("Faults injected / s")
            .tells("Requests that a fault was injected into, by kind.")
            .if_bad("Expected while somebody tests; else end them as above.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.faults.injected").rate().sum_by(["job", "kind"])),
        graph("Panics / min")
            .tells("Handlers that panicked; each is one answer of 500.")
            .if_bad("A bug: the log has the message and the place.")
            .unit(unit::PER_MINUTE)
            .limit(0.1)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.panics").rate().sum_by(["job"]).per_minute().or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(6, 8))
}
