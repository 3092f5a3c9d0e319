//! Idempotency keys: the same request twice is one order and one answer.

use std::time::Duration;

use time::OffsetDateTime;

use super::{CreateResult, FIRST_FENCE};
use crate::order::Order;

/// How long a key is kept.
pub const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// A caller's name for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller: a token's `sub`. Keys of different subjects have nothing to do with each other.
    pub subject: String,
    /// What the caller sent.
    pub key: String,
    /// Digest of the request: another one under the same key is a mistake of the caller.
    pub fingerprint: [u8; 32],
}

/// What was answered to the request with this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// The request's key.
    pub key: IdempotencyKey,
    /// The answer, opaque to the store.
    pub bytes: Vec<u8>,
}

/// A key that is taken, and how its order stands.
pub(super) struct ExistingKey {
    pub(super) fingerprint: Vec<u8>,
    pub(super) response: Option<Vec<u8>>,
    pub(super) fence: i64,
    pub(super) due_at: Option<OffsetDateTime>,
    pub(super) order: Order,
}

impl ExistingKey {
    /// What to tell a create with the same key at `now`. A creator that died must not make its key useless.
    pub(super) fn resolve(self, key: &IdempotencyKey, is_retry: bool, now: OffsetDateTime) -> CreateResult {
        let creator_is_active = !is_retry && self.fence == FIRST_FENCE && self.due_at.is_some_and(|due_at| due_at > now);
        match self.response {
            _ if self.fingerprint != key.fingerprint => CreateResult::KeyReused,
            Some(response) => CreateResult::Replayed { response },
            None if creator_is_active => CreateResult::InProgress,
            None => CreateResult::Existing(self.order),
        }
    }
}
