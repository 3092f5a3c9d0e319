//! Cursor pagination: opaque page tokens, authenticated (HMAC) and bound to one query.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac, digest::Key};
use sha2::{Digest, Sha256};

const TAG_BYTES: usize = 16;
/// Maximum cursor length, bytes. No cursor created by [`Cursor::seal`] exceeds it.
const MAX_TEXT_BYTES: usize = 2_048;

/// Seals and opens cursors with a secret.
#[derive(Clone)]
pub struct Cursor(Hmac<Sha256>);

/// Invalid cursor: forged, or sealed for another query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor for this query")]
pub struct InvalidCursor;

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}

impl Cursor {
    /// Derives the key from `secret`, which must be the same in all replicas.
    pub fn new(secret: &[u8]) -> Self {
        let mut key = Key::<Hmac<Sha256>>::default();
        let digest = Sha256::digest(secret);
        key[..digest.len()].copy_from_slice(&digest);
        Self(Hmac::new(&key))
    }

    /// Returns the cursor for `position` in the query described by `scope`, as URL-safe text.
    pub fn seal(&self, scope: &[u8], position: &[u8]) -> String {
        let tag = self.mac(scope, position).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&tag[..TAG_BYTES], position].concat())
    }

    /// Returns the position of a cursor that [`Self::seal`] created for the same `scope`.
    pub fn open(&self, scope: &[u8], text: &str) -> Result<Vec<u8>, InvalidCursor> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (tag, position) = bytes.split_at_checked(TAG_BYTES).ok_or(InvalidCursor)?;
        self.mac(scope, position).verify_truncated_left(tag).map_err(|_| InvalidCursor)?;
        Ok(position.to_vec())
    }

    fn mac(&self, scope: &[u8], position: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&(scope.len() as u64).to_be_bytes());
        mac.update(scope);
        mac.update(position);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_opens_only_for_same_secret_and_query() {
        let cursor = Cursor::new(b"secret");
        let text = cursor.seal(b"orders of alice", b"position");
        assert_eq!(cursor.open(b"orders of alice", &text).unwrap(), b"position");
        assert_eq!(cursor.open(b"orders of bob", &text), Err(InvalidCursor));
        assert_eq!(Cursor::new(b"other").open(b"orders of alice", &text), Err(InvalidCursor));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(cursor.open(b"orders of alice", std::str::from_utf8(&changed).unwrap()), Err(InvalidCursor), "byte {at}");
        }
        for garbage in ["", "x", "%%%", &"A".repeat(5_000)] {
            assert_eq!(cursor.open(b"orders of alice", garbage), Err(InvalidCursor));
        }
    }
}
