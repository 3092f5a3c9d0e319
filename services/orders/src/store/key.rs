//! Idempotency keys: repeated create requests yield one order and one response.

use std::time::Duration;

use time::OffsetDateTime;

use super::{CreateResult, FIRST_FENCE};
use crate::order::Order;

/// Retention of an idempotency key.
pub const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// Idempotency key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Caller: the `sub` of a token. Keys are unique per subject.
    pub subject: String,
    /// Key that the caller sent.
    pub key: String,
    /// Digest of the request. A different digest under the same key is an error of the caller.
    pub fingerprint: [u8; 32],
}

/// Stored response of the request with this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Idempotency key of the request.
    pub key: IdempotencyKey,
    /// Encoded response, opaque to the store.
    pub bytes: Vec<u8>,
}

/// A stored key and the state of its order.
pub(super) struct ExistingKey {
    pub(super) fingerprint: Vec<u8>,
    pub(super) response: Option<Vec<u8>>,
    pub(super) fence: i64,
    pub(super) due_at: Option<OffsetDateTime>,
    pub(super) order: Order,
}

impl ExistingKey {
    /// Result of a create with the same key at `now`. A key remains usable after its creator
    /// crashed.
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
