//! Data store dashboard: operations and connection pools, measured by the services.

use super::{http_requests, store_operations};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, heatmap, stacked_timeseries, timeseries, unit},
    query::metric,
};

const SYSTEM: [&str; 2] = ["job", "db.system.name"];
const OPERATION: [&str; 3] = ["job", "db.collection.name", "db.operation.name"];
const POOL: [&str; 2] = ["job", "db.client.connection.pool.name"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Latency and errors of each data store, and saturation of its connection pools.";
    Dashboard::new("data", "Palisade / 07 Data stores", about)
        .row("Operations", operations())
        .row("Pools", pools())
        .row("Rows, clock, audit", rows())
        .collapsed_row("Group commit", batches())
}

fn operations() -> [Panel; 7] {
    let failed = || store_operations().count().is_not("error.type", "").rate();
    let store_seconds = store_operations().sum().rate().sum_by([]) / http_requests().sum().rate().sum_by([]);
    [
        timeseries("Operations / s")
            .description("Store operations by collection and operation.")
            .remediation("More operations than the calls explain: a query in a loop (N+1), or a sweep with a large backlog.")
            .unit(unit::PER_SECOND)
            .traces(Traces::SERVICE)
            .query(store_operations().count().rate().sum_by(OPERATION)),
        timeseries("DB error ratio")
            .description("Share of store operations that failed. A flat 0 means no errors.")
            .remediation("All operations at once: the server is down or full. One operation: check its error type.")
            .errors()
            .traces(Traces::SERVICE.failed_calls())
            .query(failed().sum_by(SYSTEM).share_of(&store_operations().count().rate().sum_by(SYSTEM))),
        stacked_timeseries("Errors by type / s")
            .description("Failed store operations by error type.")
            .remediation(
                "`timeout`: the store is slow or hangs. `unavailable`: no connection. `corrupt`: a stored record cannot be decoded.",
            )
            .unit(unit::PER_SECOND)
            .traces(Traces::SERVICE.failed_calls())
            .query(failed().sum_by(["job", "db.operation.name", "error.type"]).or_zero(&store_operations().count())),
        timeseries("p95 by operation")
            .description("95th percentile of operation durations, including the wait for a connection.")
            .remediation("If the acquire wait is high too, the pool is the bottleneck. Otherwise check the query, locks or the disk.")
            .unit(unit::SECONDS)
            .limits(0.1, 0.5)
            .traces(Traces::SERVICE.slow())
            .query(store_operations().quantile(0.95, OPERATION)),
        timeseries("p99 by system")
            .description("99th percentile of operation durations by store.")
            .remediation("Periodic peaks come from store maintenance: checkpoints, compaction.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .query(store_operations().quantile(0.99, SYSTEM)),
        heatmap("Latency heatmap")
            .description("Distribution of operation durations, all stores.")
            .remediation("A second band far above the first: some operations wait for a lock or a connection.")
            .unit(unit::SECONDS)
            .query(store_operations().bucket().rate().sum_by(["le"])),
        timeseries("DB seconds per gateway second")
            .description(
                "Time spent in stores per second of gateway request time. Above 1: parallel operations or \
                    background work.",
            )
            .remediation("Near 1: request latency is dominated by the stores. Near 0: look elsewhere.")
            .unit(unit::NUMBER)
            .query(store_seconds.legend_prefix("seconds")),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn pools() -> [Panel; 5] {
    let used = metric("db.client.connection.count").is("db.client.connection.state", "used").now().sum_by(POOL);
    [
        stacked_timeseries("Pool connections by state")
            .description("Established connections: idle or used.")
            .remediation("No idle connection left: operations wait for one.")
            .unit(unit::COUNT)
            .query(metric("db.client.connection.count").now().sum_by([
                "job",
                "db.client.connection.pool.name",
                "db.client.connection.state",
            ])),
        timeseries("Pool utilisation")
            .description("Used connections divided by the maximum pool size.")
            .remediation(
                "Above 90 %: operations became slower, or connections leak. A larger pool helps only if the server has spare capacity.",
            )
            .share(0.7, 0.9)
            .runbook("DbPoolSaturated")
            .query(used / metric("db.client.connection.limit").now().sum_by(POOL)),
        timeseries("Waiters")
            .description("Operations waiting for a connection.")
            .remediation("Constantly above 0: the pool is the bottleneck.")
            .unit(unit::COUNT)
            .runbook("DbPoolSaturated")
            .query(metric("db.client.connection.pending_requests").now().sum_by(POOL)),
        timeseries("Acquire wait p95")
            .description("Time to acquire a connection.")
            .remediation("The wait is part of every operation's duration.")
            .unit(unit::SECONDS)
            .limits(0.01, 0.1)
            .query(metric("db.client.connection.wait_time").quantile(0.95, POOL)),
        timeseries("Acquire timeouts / s")
            .description("Acquisitions that timed out. Each one is a failed operation.")
            .remediation("The database hangs or rejects connections, or the pool leaks.")
            .unit(unit::PER_SECOND)
            .limit(0.01)
            .runbook("DbPoolTimeouts")
            .query(metric("db.client.connection.timeouts").rate().sum_by(POOL)),
    ]
    .map(|panel| panel.sized(8, 7))
}

fn batches() -> [Panel; 3] {
    const QUEUE: [&str; 2] = ["job", "queue"];
    [
        timeseries("Writes per commit")
            .description("Mean number of writes that shared one commit. 1 while no two of them meet.")
            .remediation("Close to 64 for long: the store is the bottleneck, see the durations of its operations.")
            .unit(unit::COUNT)
            .query(
                metric("palisade.store.batch_size").sum().rate().sum_by(QUEUE)
                    / metric("palisade.store.batch_size").count().rate().sum_by(QUEUE),
            ),
        timeseries("Writes waiting for a commit")
            .description("Writes in the queue of the next batch.")
            .remediation("More than 64 for long: more writes arrive than the store commits.")
            .unit(unit::COUNT)
            .limits(64.0, 1_000.0)
            .query(metric("palisade.store.waiting_writes").now().sum_by(QUEUE)),
        timeseries("Writes rejected / s")
            .description("Writes rejected as `overloaded` because the queue was full. Nothing of them is stored.")
            .remediation("The store hangs or is far too slow. Callers retry.")
            .unit(unit::PER_SECOND)
            .limit(0.01)
            .query(metric("palisade.store.rejected_writes").rate().sum_by(QUEUE)),
    ]
}

fn rows() -> [Panel; 7] {
    const ROWS: [&str; 2] = ["job", "collection"];
    [
        timeseries("Rows in quarantine")
            .description("Rows set aside because they cannot be read. The work on all other rows goes on.")
            .remediation(
                "`GET /saga/quarantine` (orders) or `GET /reservations/quarantine` (products) on the admin port: repair, then release.",
            )
            .unit(unit::COUNT)
            .limit(1.0)
            .query(metric("palisade.store.quarantined_rows").now().max_by(ROWS)),
        timeseries("Unreadable rows / min")
            .description("Rows left out of a list or dead-lettered because they cannot be read.")
            .remediation("Changed by something else than the service: the log names the row and the cause.")
            .unit(unit::PER_MINUTE)
            .limit(0.1)
            .query(metric("palisade.store.unreadable_rows").rate().sum_by(ROWS).per_minute()),
        timeseries("Rows past retention")
            .description("Expired idempotency keys, published events and settled orders that are not deleted yet, up to 10,000.")
            .remediation("Should return to 0 within minutes. Otherwise see the jobs `cleanup` and `retention` under background jobs.")
            .unit(unit::COUNT)
            .limits(5_000.0, 10_000.0)
            .query(metric("palisade.store.overdue_rows").now().max_by(ROWS)),
        timeseries("Rows deleted / min")
            .description("Rows deleted after their retention, by collection. The rows of an order count with it.")
            .remediation("0 while rows are past their retention: the job fails, or its archive cannot be written.")
            .unit(unit::PER_MINUTE)
            .query(metric("palisade.store.deleted_rows").rate().sum_by(ROWS).per_minute()),
        timeseries("Reservations repaired / min")
            .description("Reservations that an operator made agree with their orders, by outcome.")
            .remediation("`refused`: the order cannot have its units, cancel it. See docs/backup.md.")
            .unit(unit::PER_MINUTE)
            .query(metric("palisade.invariant.repairs").rate().sum_by(["job", "outcome"]).per_minute()),
        timeseries("Clock offset")
            .description("Time of the database server minus the time of each process. 0 with an embedded store.")
            .remediation("More than a second: the clock of one machine is wrong, check NTP. Leases follow the server.")
            .unit(unit::SECONDS)
            .query(metric("palisade.store.clock_offset").now().max_by(["job", "instance"])),
        timeseries("Time since audit")
            .description("Time since the last complete audit, by check. `reservations` needs products.")
            .remediation("Not checked is not in order: `GET /invariants` on the admin port shows what prevents the audit.")
            .unit(unit::SECONDS)
            .limits(600.0, 3_600.0)
            .query(metric("palisade.invariant.last_audit").now().max_by(["check"]).above(0.0).age()),
    ]
    .map(|panel| panel.sized(6, 7))
}
