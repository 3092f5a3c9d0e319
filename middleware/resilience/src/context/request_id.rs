//! Request id for responses, log records and outbound calls.

use std::{fmt, ops::Deref};

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
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
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
