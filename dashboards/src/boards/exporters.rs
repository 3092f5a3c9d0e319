//! Small dashboards of the exporters: PostgreSQL, MongoDB, NATS, host. Their metrics have no labels
//! of a Palisade process, so the variables do not apply.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, stat, timeseries, unit},
    query::{Query, Series, external_metric},
};

const WITHOUT_EXPORTER: &str = "present only with the exporter of the compose stack";

pub(super) fn dashboards() -> [Dashboard; 4] {
    let dashboard = |name, title, about, panels: Vec<Panel>| {
        let panels = panels.into_iter().map(|panel| panel.without_data("not configured: no exporter"));
        Dashboard::new(name, title, about).row("From the exporter", panels)
    };
    [
        dashboard(
            "postgres",
            "Palisade / 20 PostgreSQL",
            "The server of orders, from inside. \"Data stores\" has the view of the services.",
            postgres(),
        ),
        dashboard(
            "mongodb",
            "Palisade / 21 MongoDB",
            "The server of products, from inside. \"Data stores\" has the view of the services.",
            mongodb(),
        ),
        dashboard("nats", "Palisade / 22 NATS", "The event broker, from inside. \"Orders and sagas\" has the outbox.", nats()),
        dashboard("node", "Palisade / 23 Host", "The machine of the containers.", node()),
    ]
}

/// Series of an exporter, absent without it.
fn optional(query: Query) -> Query {
    query.may_be_absent(WITHOUT_EXPORTER)
}

fn up(name: &str) -> Panel {
    stat("Server reachable")
        .description("1 if the exporter reaches its server.")
        .remediation("0: the server is down, or the address or password of the exporter is wrong.")
        .unit(unit::COUNT)
        .share_of_good(1.0, 1.0)
        .unit(unit::COUNT)
        .sized(4, 8)
        .query(optional(external_metric(name).now().max_by(["job"])))
}

fn rate_by<const N: usize>(series: Series, labels: [&str; N]) -> Query {
    optional(series.rate().sum_by(labels))
}

fn postgres() -> Vec<Panel> {
    let database = |name: &str| external_metric(name).is("datname", "orders");
    let connections = optional(external_metric("pg_stat_activity_count").now().sum_by(["state"]));
    let hits = database("pg_stat_database_blks_hit").rate().sum_by([]);
    let reads = database("pg_stat_database_blks_read").rate().sum_by([]);
    vec![
        up("pg_up"),
        timeseries("Connections by state")
            .description("Connections of all clients, by state.")
            .remediation("`idle in transaction` for long: a client holds locks. Near `max_connections`: new connections fail.")
            .unit(unit::COUNT)
            .sized(10, 8)
            .query(connections),
        timeseries("Transactions / s")
            .description("Committed transactions, and those that were rolled back.")
            .remediation("Many rollbacks: conflicts or errors, see the errors by type on \"Data stores\".")
            .unit(unit::PER_SECOND)
            .sized(10, 8)
            .query(rate_by(database("pg_stat_database_xact_commit"), []).legend_prefix("commit"))
            .query(rate_by(database("pg_stat_database_xact_rollback"), []).legend_prefix("rollback")),
        timeseries("Buffer cache hit ratio")
            .description("Share of the blocks that were found in shared buffers.")
            .remediation("Falling: the data no longer fits. Raise `shared_buffers`, or look for a sequential scan.")
            .share_of_good(0.95, 0.8)
            .query(optional((hits.clone() / (hits + reads)).legend_prefix("hits"))),
        timeseries("Deadlocks / min")
            .description("Transactions that PostgreSQL ended because they waited for each other.")
            .remediation("The log of PostgreSQL has both statements.")
            .unit(unit::PER_MINUTE)
            .limit(0.1)
            .query(rate_by(database("pg_stat_database_deadlocks"), []).per_minute().legend_prefix("deadlocks")),
        timeseries("Database size")
            .description("Size of the database on disk.")
            .remediation("Growth without more orders: retention is behind, or vacuum does not run.")
            .unit(unit::BYTES)
            .query(optional(external_metric("pg_database_size_bytes").is("datname", "orders").now().max_by(["datname"]))),
    ]
}

fn mongodb() -> Vec<Panel> {
    vec![
        up("mongodb_up"),
        timeseries("Operations / s")
            .description("Operations by kind.")
            .remediation("More queries than the calls of products explain: a sweep, or a foreign client.")
            .unit(unit::PER_SECOND)
            .sized(10, 8)
            .query(rate_by(external_metric("mongodb_ss_opcounters"), ["legacy_op_type"])),
        timeseries("Connections")
            .description("Connections: `current` are open, `active` of them are in an operation.")
            .remediation("`current` grows without more load: a client leaks connections. At `maxIncomingConnections` new ones fail.")
            .unit(unit::COUNT)
            .sized(10, 8)
            .query(optional(external_metric("mongodb_ss_connections").matches("conn_type", "current|active").now().max_by(["conn_type"]))),
        timeseries("Cache used / limit")
            .description("Use of the WiredTiger cache.")
            .remediation("Above 80 % MongoDB evicts, above 95 % operations wait for the eviction.")
            .share(0.8, 0.95)
            .query(optional(
                (external_metric("mongodb_ss_wt_cache_bytes_currently_in_the_cache").now().max_by([])
                    / external_metric("mongodb_ss_wt_cache_maximum_bytes_configured").now().max_by([]))
                .legend_prefix("cache"),
            )),
        timeseries("Resident memory")
            .description("Resident memory of the server, MiB.")
            .remediation("Near the limit of the container: lower the size of the cache.")
            .unit(unit::NUMBER)
            .query(optional(external_metric("mongodb_ss_mem_resident").now().max_by([]).legend_prefix("MiB"))),
        timeseries("Data size")
            .description("Size of the documents, by database.")
            .remediation("Growth without more products or orders: retention is behind.")
            .unit(unit::BYTES)
            .query(optional(external_metric("mongodb_dbstats_dataSize").now().max_by(["database"]))),
    ]
}

fn nats() -> Vec<Panel> {
    vec![
        stat("Streams")
            .description("Streams of JetStream.")
            .remediation("0: no service has published, or NATS lost its volume. Events wait in the outbox.")
            .unit(unit::COUNT)
            .sized(4, 8)
            .query(optional(external_metric("jetstream_server_total_streams").now().max_by([]))),
        timeseries("Messages / s")
            .description("Messages received from and sent to clients.")
            .remediation("None in while orders change: the outbox has the reason. Fewer out than in: no gateway subscribes.")
            .unit(unit::PER_SECOND)
            .sized(10, 8)
            .query(rate_by(external_metric("gnatsd_varz_in_msgs"), []).legend_prefix("in"))
            .query(rate_by(external_metric("gnatsd_varz_out_msgs"), []).legend_prefix("out")),
        timeseries("Connections and slow consumers")
            .description("Open connections, and consumers that NATS disconnected because they read too slowly.")
            .remediation("Slow consumers: a gateway is overloaded, it invalidates its whole cache after the gap.")
            .unit(unit::COUNT)
            .sized(10, 8)
            .query(optional(external_metric("gnatsd_varz_connections").now().max_by([]).legend_prefix("connections")))
            .query(optional(external_metric("gnatsd_varz_slow_consumers").now().max_by([]).legend_prefix("slow consumers"))),
        timeseries("Messages in streams")
            .description("Messages that JetStream keeps, by stream.")
            .remediation("At the limit of the stream the oldest are dropped, or publishing fails: see `events.stream_max_bytes`.")
            .unit(unit::COUNT)
            .query(optional(external_metric("jetstream_stream_total_messages").now().max_by(["stream_name"]))),
        timeseries("Bytes in streams")
            .description("Size of the messages that JetStream keeps, by stream.")
            .remediation("Near `max_file_store`: lower the limits of the streams.")
            .unit(unit::BYTES)
            .query(optional(external_metric("jetstream_stream_total_bytes").now().max_by(["stream_name"]))),
        timeseries("Memory")
            .description("Resident memory of the server.")
            .remediation("Near the limit of the container: consumers do not read.")
            .unit(unit::BYTES)
            .query(optional(external_metric("gnatsd_varz_mem").now().max_by([]).legend_prefix("resident"))),
    ]
}

fn node() -> Vec<Panel> {
    let memory = |name: &str| external_metric(name).now().max_by([]);
    let disk = |name: &str| external_metric(name).now().max_by(["device"]);
    vec![
        timeseries("CPU used")
            .description("Share of all cores that is not idle, by mode.")
            .remediation("`iowait`: the disk is the bottleneck. `steal`: the hypervisor gives the cores to others.")
            .share(0.7, 0.9)
            .query(optional(external_metric("node_cpu_seconds_total").is_not("mode", "idle").rate().avg_by(["mode"]))),
        timeseries("Memory used")
            .description("Share of the memory that is not available.")
            .remediation("Above 90 %: the kernel ends a process when it has none left. Lower the limits of the containers.")
            .share(0.8, 0.9)
            .query(optional(
                (memory("node_memory_MemAvailable_bytes") / memory("node_memory_MemTotal_bytes")).complement().legend_prefix("used"),
            )),
        timeseries("CPU pressure")
            .description("Share of time in which some process waited for a CPU.")
            .remediation("Every latency on this machine contains this wait: see *CPU cores used* of Runtime.")
            .share(0.3, 0.6)
            .query(rate_by(external_metric("node_pressure_cpu_waiting_seconds_total"), [])),
        timeseries("Disk busy")
            .description("Share of time in which a device had work.")
            .remediation("At 100 % every commit waits: see the durations of the store operations.")
            .share(0.7, 0.9)
            .query(rate_by(external_metric("node_disk_io_time_seconds_total"), ["device"])),
        timeseries("Disk bytes / s")
            .description("Bytes read and written.")
            .remediation("Writes without load: compaction of a store, or logs.")
            .unit(unit::BYTES)
            .query(rate_by(external_metric("node_disk_read_bytes_total"), []).legend_prefix("read"))
            .query(rate_by(external_metric("node_disk_written_bytes_total"), []).legend_prefix("written")),
        timeseries("Disk free")
            .description("Share of the disk that is free, by device.")
            .remediation("Below 10 %: delete images and old reports. A full disk stops every store.")
            .share_of_good(0.2, 0.1)
            .query(optional(disk("node_filesystem_avail_bytes") / disk("node_filesystem_size_bytes"))),
    ]
}
