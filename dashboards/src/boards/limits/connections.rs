//! Connections of the ports: open, waiting for their readers, and closed by a limit.

use crate::{
    boards::every_process,
    panel::{Panel, timeseries, unit},
    query::metric,
};

pub(super) fn panels() -> [Panel; 3] {
    [
        timeseries("Open connections / limit")
            .description("Open connections of each port, as a share of its limit. At the limit the longest idle connection is closed.")
            .remediation("At 100 %: many clients, or one that collects connections. `ss` shows the peers. Raise `server.max_connections` for real load.")
            .share(0.8, 0.95)
            .query(
                metric("palisade.connections.open").now().sum_by(["job", "listener"])
                    / metric("palisade.connections.limit").now().sum_by(["job", "listener"]),
            ),
        timeseries("Response bytes waiting")
            .description("Response bytes in memory that wait for their readers. Above half of the limit, stalled readers are closed.")
            .remediation("Rising: clients request much and read little. The limits per address and connection bound each of them.")
            .unit(unit::BYTES)
            .query(metric("palisade.connections.waiting_bytes").now().sum_by(["job", "listener"])),
        timeseries("Connections closed / s")
            .description("Connections and streams closed by a limit, by reason. `age` is the normal end of a long-lived connection.")
            .remediation(
                "`address…`: too many connections from one IP. `evicted`: the port was full. `drain`: requests outlast a shutdown. \
                     `…_stall`, `slow_…`, `waiting_bytes`: slow clients.",
            )
            .unit(unit::PER_SECOND)
            .query(metric("palisade.connections.closed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(8, 8))
}
