//! Identity of a caller: unique across all issuers, the same from the verifier to the store.

use std::{fmt, sync::Arc};

/// Maximum length of a token's `sub`, characters.
pub const MAX_SUB_CHARS: usize = 255;
/// Maximum length of an issuer's prefix, characters.
pub const MAX_PREFIX_CHARS: usize = 32;
/// Maximum length of a subject, characters: a prefix and a `sub`.
pub const MAX_SUBJECT_CHARS: usize = MAX_PREFIX_CHARS + MAX_SUB_CHARS;

/// Identity of a user or service. The claim `sub` is unique only within its issuer (RFC 7519
/// section 4.1.2), so it is no identity: [`Subject::of_issuer`] adds the prefix of the issuer.
/// Orders, idempotency keys, limits, streams, revocations and internal tokens all use this type.
///
/// ```
/// use palisade_resilience::context::Subject;
///
/// let user = Subject::of_issuer("partner:", "1001")?;
/// assert_eq!(user, "partner:1001");
/// assert_ne!(user, Subject::of_issuer("", "1001")?);
/// # Ok::<_, palisade_resilience::context::InvalidSubject>(())
/// ```
///
/// A `sub` is not an identity and does not compile as one:
///
/// ```compile_fail
/// use palisade_resilience::context::Principal;
///
/// let sub = String::from("1001");
/// Principal::on_behalf_of(sub.as_str());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

/// Text that is no subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// No text.
    #[error("must not be empty")]
    Empty,
    /// More than [`MAX_SUB_CHARS`] characters after the prefix.
    #[error("must have at most {MAX_SUB_CHARS} characters")]
    TooLong,
    /// Control characters.
    #[error("must not have control characters")]
    ControlCharacter,
}

impl Subject {
    /// Creates the subject of a verified `sub` of the issuer with this prefix, which may be empty.
    pub fn of_issuer(prefix: &str, sub: &str) -> Result<Self, InvalidSubject> {
        check(sub, MAX_SUB_CHARS)?;
        Ok(Self(if prefix.is_empty() { sub.into() } else { format!("{prefix}{sub}").into() }))
    }

    /// Parses a whole subject, with its prefix: from a store, an internal token, or a request that
    /// names another user.
    pub fn parse(text: &str) -> Result<Self, InvalidSubject> {
        check(text, MAX_SUBJECT_CHARS)?;
        Ok(Self(text.into()))
    }

    /// Returns the text, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rule for a subject, the only one: 1 to `max` characters, none of them a control character.
fn check(text: &str, max: usize) -> Result<(), InvalidSubject> {
    if text.is_empty() {
        Err(InvalidSubject::Empty)
    } else if text.chars().count() > max {
        Err(InvalidSubject::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(InvalidSubject::ControlCharacter)
    } else {
        Ok(())
    }
}

/// Name of a service, or of a user in a test. A `sub` of a token is no literal.
impl From<&'static str> for Subject {
    fn from(name: &'static str) -> Self {
        debug_assert_eq!(check(name, MAX_SUBJECT_CHARS), Ok(()), "{name:?} is not a subject");
        Self(name.into())
    }
}

impl PartialEq<&'static str> for Subject {
    fn eq(&self, other: &&'static str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_has_1_to_255_characters() {
        for sub in ["a", "Jane Doe", "auth0|5f7", "Zoë", "日本", " ", &"é".repeat(MAX_SUB_CHARS)] {
            assert_eq!(Subject::of_issuer("", sub).unwrap().as_str(), sub);
            assert_eq!(Subject::parse(Subject::of_issuer("partner:", sub).unwrap().as_str()).unwrap().as_str(), format!("partner:{sub}"));
        }
        for (sub, error) in [
            ("", InvalidSubject::Empty),
            (&*"x".repeat(MAX_SUB_CHARS + 1), InvalidSubject::TooLong),
            ("a\0b", InvalidSubject::ControlCharacter),
            ("a\nb", InvalidSubject::ControlCharacter),
            ("\u{85}", InvalidSubject::ControlCharacter),
        ] {
            assert_eq!(Subject::of_issuer("partner:", sub), Err(error), "{sub:?}");
        }
        let longest = "x".repeat(MAX_SUBJECT_CHARS);
        assert_eq!(Subject::parse(&longest).unwrap().as_str(), longest);
        assert_eq!(Subject::parse(&(longest + "x")), Err(InvalidSubject::TooLong));
    }
}
