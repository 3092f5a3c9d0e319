//! Parsing of request parameters common to all services.

use uuid::Uuid;

use palisade_resilience::rejection::{Rejection, reasons};

/// Maximum length of an idempotency key, bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// Parses a UUID. Only the hyphenated form is accepted.
pub fn parse_uuid(text: &str) -> Result<Uuid, Rejection> {
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH);
    id.ok_or_else(|| Rejection::new(&reasons::INVALID_PARAMETER, "the id is not a UUID"))
}

/// Parses an idempotency key. An empty one is `None`, because proto3 does not distinguish it from
/// an absent one.
pub fn idempotency_key(text: String) -> Result<Option<String>, Rejection> {
    if text.len() > MAX_IDEMPOTENCY_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Rejection::new(&reasons::INVALID_PARAMETER, "the idempotency key must be 1 to 255 visible ASCII characters"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_uuid_accepts_only_hyphenated_form() {
        let hyphenated = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(parse_uuid(hyphenated).unwrap().to_string(), hyphenated);
        for other in ["", "x", &hyphenated.replace('-', ""), &format!("{{{hyphenated}}}"), &format!("urn:uuid:{hyphenated}")] {
            assert_eq!(parse_uuid(other).unwrap_err().reason(), &reasons::INVALID_PARAMETER, "{other}");
        }
    }

    #[test]
    fn idempotency_key_requires_visible_ascii() {
        assert_eq!(idempotency_key(String::new()).unwrap(), None);
        assert_eq!(idempotency_key("a".repeat(255)).unwrap(), Some("a".repeat(255)));
        for bad in ["a b", "é", "\n", &"a".repeat(256)] {
            assert_eq!(idempotency_key(bad.to_owned()).unwrap_err().reason(), &reasons::INVALID_PARAMETER, "{bad}");
        }
    }
}
