//! History of an order: each of its changes with its actor.

use palisade_middleware::auth::Subject;
use time::OffsetDateTime;

use super::{Order, Role, Status};

/// Maximum number of recorded changes that a history shows.
pub const MAX_HISTORY: u32 = 1_000;

/// Reason of the entry of a removal.
const REMOVED: &str = "removed";

/// One change of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Version of the order after the change, from 1. A removal keeps the version.
    pub version: i64,
    /// Status before the change. `None` for the creation.
    pub from: Option<Status>,
    /// Status after the change.
    pub to: Status,
    /// Slug of the reason, if there is one.
    pub reason: Option<String>,
    /// Role of the actor. `None` if it is unknown.
    pub role: Option<Role>,
    /// User that the change was made for. `None` for the saga, and if it is unknown.
    pub subject: Option<Subject>,
    /// Service that made the change. `None` if it is unknown.
    pub service: Option<String>,
    /// Time of the change.
    pub at: OffsetDateTime,
}

impl Order {
    /// Completes `recorded`, the stored changes of this order from the oldest: adds the role of its
    /// creator, and its removal as the last entry.
    pub fn complete_history(&self, mut recorded: Vec<HistoryEntry>) -> Vec<HistoryEntry> {
        let role = |subject: &Option<Subject>| subject.as_ref().map(|subject| Role::towards(&self.user_id, subject));
        if let Some(creation) = recorded.first_mut().filter(|entry| entry.from.is_none()) {
            creation.role = role(&creation.subject);
        }
        recorded.extend(self.removed.as_ref().map(|removal| HistoryEntry {
            version: self.version,
            from: Some(self.status),
            to: self.status,
            reason: Some(REMOVED.to_owned()),
            role: role(&removal.by),
            subject: removal.by.clone(),
            service: removal.service.clone(),
            at: removal.at,
        }));
        recorded
    }
}
