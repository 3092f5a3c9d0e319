//! Decoding of fuzz inputs to numbers, texts and header lines.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Remaining bytes of an input. A number beyond the end is 0.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Returns a number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Returns a number of milliseconds, mostly small, up to 18 hours.
    pub(crate) fn millis(&mut self) -> u64 {
        let (shift, number) = (self.below(11), self.u16());
        u64::from(number) << shift
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Splits the input at line feeds, which no header contains, into lines of one header. Returns
/// `None` if a line is no header value.
pub(crate) fn lines(name: &HeaderName, input: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').filter(|_| !input.is_empty()) {
        headers.append(name.clone(), HeaderValue::from_bytes(line).ok()?);
    }
    Some(headers)
}

/// Parses digits, and nothing but digits.
pub(crate) fn digits(text: &[u8]) -> Option<u128> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0_u128, |number, digit| number.saturating_mul(10).saturating_add((digit - b'0').into())))
}
