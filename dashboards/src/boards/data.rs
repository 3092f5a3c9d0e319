//! The stores as their services see them: operations, and the pools of connections.

use super::{db, http};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, timeseries, heatmap, unit},
    query::metric,
};

const SYSTEM: [&str; 2] = ["job", "db.system.name"];
const OPERATION: [&str; 3] = ["job", "db.collection.name", "db.operation.name"];
const POOL: [&str; 2] = ["job", "db.client.connection.pool.name"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Whether a store is slow, fails, or cannot be reached because the pool in front of it is empty.";
    Dashboard::new("data", "Palisade / 5 Data stores", about).row("Operations", operations()).row("Pools", pools())
}

fn operations() -> [Panel; 7] {
    let failed = || db().count().is_not("error.type", "").rate();
    let spent = db().sum().rate().sum_by([]) / http().sum().rate().sum_by([]);
    [
        timeseries("Operations / s")
            .description("Operations by store and kind.")
            .remediation("More than the calls explain: a query in a loop, or a sweep that finds too much.")
            .unit(unit::PER_SECOND)
            .traces(Traces::SERVICE)
            .query(db().count().rate().sum_by(OPERATION)),
        timeseries("DB error ratio")
            .description("Share of operations that failed; a flat 0 is none.")
            .remediation("All kinds at once: the server is down or full. One kind: see its error.")
            .errors()
            .traces(Traces::SERVICE.failed())
            .query(failed().sum_by(SYSTEM).share_of(&db().count().rate().sum_by(SYSTEM))),
        stacked_timeseries("Errors by type / s")
            .description("Operations that failed, by the kind of error.")
            .remediation("`timeout`: slow or hanging. `unavailable`: no connection. `corrupt`: what is stored cannot be read.")
            .unit(unit::PER_SECOND)
            .traces(Traces::SERVICE.failed())
            .query(failed().sum_by(["job", "db.operation.name", "error.type"]).or_zero(&db().count())),
        timeseries("p95 by operation")
            .description("How long operations take, waiting for a connection included.")
            .remediation("If waits for a connection are long too, it is the pool; else the query, a lock or the disk.")
            .unit(unit::SECONDS)
            .limits(0.1, 0.5)
            .traces(Traces::SERVICE.slow())
            .query(db().quantile(0.95, OPERATION)),
        timeseries("p99 by system")
            .description("How long the slowest hundredth of each store's operations takes.")
            .remediation("Regular peaks are the store's own housekeeping: check points, compaction.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .query(db().quantile(0.99, SYSTEM)),
        heatmap("Latency heatmap")
            .description("How many operations took how long, of all stores.")
            .remediation("A second band far above the first: some operations wait for locks or for a connection.")
            .unit(unit::SECONDS)
            .query(db().bucket().rate().sum_by(["le"])),
        timeseries("DB seconds per gateway second")
            .description(
                "Time spent in stores for each second that users waited. Above 1: several operations at once, or work that \
                    nobody waits for.",
            )
            .remediation("Near 1 the stores are what users wait for; near 0 they are not.")
            .unit(unit::NUMBER)
            .query(spent.legend_prefix("seconds")),
    ]
}

fn pools() -> [Panel; 5] {
    let used = metric("db.client.connection.count").is("db.client.connection.state", "used").now().sum_by(POOL);
    [
        stacked_timeseries("Pool connections by state")
            .description("Connections that exist, idle or used.")
            .remediation("All used and none idle: operations wait.")
            .unit(unit::COUNT)
            .query(metric("db.client.connection.count").now().sum_by([
                "job",
                "db.client.connection.pool.name",
                "db.client.connection.state",
            ])),
        timeseries("Pool utilisation")
            .description("Connections used by those allowed.")
            .remediation("Above 90 %: operations got slower, or something holds connections. A larger pool helps only if the server has room.")
            .share(0.7, 0.9)
            .runbook("DbPoolSaturated")
            .query(used / metric("db.client.connection.limit").now().sum_by(POOL)),
        timeseries("Waiters")
            .description("Operations that wait for a connection.")
            .remediation("Any that stay: the pool is the bottleneck.")
            .unit(unit::COUNT)
            .runbook("DbPoolSaturated")
            .query(metric("db.client.connection.pending_requests").now().sum_by(POOL)),
        timeseries("Acquire wait p95")
            .description("How long it took to get a connection.")
            .remediation("It is part of every operation's duration.")
            .unit(unit::SECONDS)
            .limits(0.01, 0.1)
            .query(metric("db.client.connection.wait_time").quantile(0.95, POOL)),
        timeseries("Acquire timeouts / s")
            .description("Waits for a connection that were in vain: each is a failed operation.")
            .remediation("The database hangs or refuses connections, or the pool leaks.")
            .unit(unit::PER_SECOND)
            .limit(0.01)
            .runbook("DbPoolTimeouts")
            .query(metric("db.client.connection.timeouts").rate().sum_by(POOL)),
    ]
}
