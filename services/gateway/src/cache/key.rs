//! Cache keys, and the product versions that decide what a change invalidates.

use std::sync::Arc;

use palisade_proto::products::v1::FindAllRequest;
use uuid::Uuid;

/// Minimum version while the new version is unknown: above every real version, below that of a
/// removed product.
pub(super) const UNKNOWN: i64 = i64::MAX - 1;
/// Version of a removed product: above every other.
const REMOVED: i64 = i64::MAX;

/// Cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One product.
    Product(Uuid),
    /// One page of the product list.
    Page(Arc<FindAllRequest>),
}

/// Version of a product after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The product has this version.
    Known(i64),
    /// The product was removed.
    Removed,
    /// The outcome of the change is unknown.
    Unknown,
}

impl Key {
    /// Returns the size of the texts in the key, bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Product(_) => 0,
            Self::Page(request) => {
                let texts = [request.category.as_deref(), request.q.as_deref(), Some(request.cursor.as_str())];
                texts.into_iter().flatten().map(str::len).sum()
            }
        }
    }
}

impl Version {
    /// Returns the version in a change event: the sequence of the event.
    pub(super) fn from_sequence(sequence: i64) -> Self {
        if sequence == REMOVED { Self::Removed } else { Self::Known(sequence) }
    }

    /// Whether this is newer than `version`.
    pub(super) fn supersedes(self, version: i64) -> bool {
        version < self.min_version()
    }

    /// Returns the lowest version that may still be current.
    pub(super) fn min_version(self) -> i64 {
        match self {
            Self::Known(version) => version,
            Self::Unknown => UNKNOWN,
            Self::Removed => REMOVED,
        }
    }
}
