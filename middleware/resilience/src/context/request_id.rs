//! Request id for responses, log records and outbound calls.

use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher, RandomState},
    ops::Deref,
};

use bytes::Bytes;
use http::HeaderValue;

const MAX_LENGTH: usize = 64;

/// Request id: 1 to 64 letters, digits or hyphens, safe for logs and headers. Cheap to clone;
/// stored as a header value.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Creates a random UUID.
    pub fn random() -> Self {
        let text = uuid(random_bits());
        // `from_owner` avoids an allocation: copied bytes allocate again when they are first
        // shared.
        Self(HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or(HeaderValue::from_static("none")))
    }

    /// Parses the id of a caller. Returns `None` if it is invalid.
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let valid = (1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        valid.then(|| Self(value.clone()))
    }

    /// Returns the id as a header value.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Returns 128 random bits: a keyed hash of a counter, per thread. The operating system supplies
/// the key once, because a system call per request would cost more than the rest of the layer.
fn random_bits() -> u128 {
    thread_local! {
        static SOURCE: (RandomState, Cell<u64>) = (RandomState::new(), const { Cell::new(0) });
    }
    SOURCE.with(|(key, count)| {
        let number = count.get();
        count.set(number.wrapping_add(1));
        u128::from(key.hash_one((number, 0_u8))) << 64 | u128::from(key.hash_one((number, 1_u8)))
    })
}

/// Formats bits as a UUID of version 4 (RFC 9562 §5.4).
fn uuid(bits: u128) -> [u8; 36] {
    let bits = bits & !(0xf000_u128 << 64) & !(0xc000_u128 << 48) | 0x4000_u128 << 64 | 0x8000_u128 << 48;
    let mut text = [b'-'; 36];
    let digits = text.iter_mut().enumerate().filter(|(at, _)| ![8, 13, 18, 23].contains(at));
    for (shift, (_, digit)) in (0..32).rev().zip(digits) {
        *digit = b"0123456789abcdef"[(bits >> (4 * shift) & 0xf) as usize];
    }
    text
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        // ASCII by construction.
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_request_id_is_a_uuid() {
        for bits in [0, u128::MAX, random_bits()] {
            let parsed = uuid::Uuid::try_parse_ascii(&uuid(bits)).unwrap();
            assert_eq!((parsed.get_version_num(), parsed.get_variant()), (4, uuid::Variant::RFC4122));
            let random = !(0xf000_u128 << 64 | 0xc000_u128 << 48);
            assert_eq!(parsed.as_u128() & random, bits & random);
        }
    }

    #[test]
    fn random_request_ids_differ_across_threads() {
        let ids = || (0..1_000).map(|_| RequestId::random().to_string()).collect::<Vec<_>>();
        let mut all: HashSet<String> = ids().into_iter().collect();
        for thread in [(); 3].map(|()| std::thread::spawn(ids)) {
            all.extend(thread.join().unwrap());
        }
        assert_eq!(all.len(), 4_000);
    }
}
