//! Parts that the stores of the services share.

mod audit;
mod deleted_rows;
pub mod json_rows;
pub mod migration;
mod owner_lock;
mod reconnect;
mod stats;
mod unreadable_rows;
mod write_probe;

pub use self::{
    audit::logged_violations,
    deleted_rows::{DELETED_ROWS, DeletedRows},
    owner_lock::OwnerLock,
    reconnect::Reconnect,
    stats::{MISSED_READS, STATS_INTERVAL},
    unreadable_rows::{OVERDUE_ROWS, QUARANTINED_ROWS, UNREADABLE_ROWS, UnreadableRows},
    write_probe::WriteProbe,
};
