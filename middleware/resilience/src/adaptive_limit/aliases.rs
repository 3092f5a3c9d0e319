//! Callers by their unverified credentials, so that a request can be attributed before
//! authentication.

use std::fmt;

use parking_lot::Mutex;

use crate::caller::CallerKey;

/// Number of entries. A new entry replaces another one with the same index.
const ENTRIES: usize = 4_096;

/// Bounded, lossy table: credentials that were verified recently, and their caller.
pub(super) struct Aliases(Mutex<Box<[Option<Entry>]>>);

/// Credentials and their caller.
type Entry = (CallerKey, CallerKey);

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aliases")
    }
}

impl Aliases {
    pub(super) fn new() -> Self {
        Self(Mutex::new(vec![None; ENTRIES].into()))
    }

    pub(super) fn insert(&self, credentials: CallerKey, caller: CallerKey) {
        self.0.lock()[index(credentials)] = Some((credentials, caller));
    }

    pub(super) fn caller_of(&self, credentials: CallerKey) -> Option<CallerKey> {
        let (known, caller) = self.0.lock()[index(credentials)]?;
        (known == credentials).then_some(caller)
    }
}

/// Index of an entry; the remainder is below [`ENTRIES`].
fn index(credentials: CallerKey) -> usize {
    usize::try_from(credentials.bits() % ENTRIES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_with_same_index_is_replaced_not_confused() {
        let (aliases, key) = (Aliases::new(), CallerKey::number);
        let colliding = 7 + ENTRIES as u64;
        aliases.insert(key(7), key(1));
        assert_eq!((aliases.caller_of(key(7)), aliases.caller_of(key(colliding))), (Some(key(1)), None));
        aliases.insert(key(colliding), key(2));
        assert_eq!((aliases.caller_of(key(7)), aliases.caller_of(key(colliding))), (None, Some(key(2))));
    }
}
