//! Parts that the stores of the services share.

mod deleted_rows;
pub mod json_rows;
pub mod migration;
mod owner_lock;
mod reconnect;
mod unreadable_rows;
mod write_probe;

pub use self::{
    deleted_rows::{DELETED_ROWS, DeletedRows},
    owner_lock::OwnerLock,
    reconnect::Reconnect,
    unreadable_rows::{OVERDUE_ROWS, QUARANTINED_ROWS, UNREADABLE_ROWS, UnreadableRows},
    write_probe::WriteProbe,
};
