//! Conditional requests: the one evaluator of `If-Match` and `If-None-Match` (RFC 9110, section
//! 13). The gateway evaluates entity tags with it, the stores evaluate versions.

/// Conditions of a request on the current representation of its target. `T` identifies a
/// representation: an entity tag, or the version that a strong entity tag contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preconditions<T> {
    /// `If-Match`. Strong comparison: the list has no weak tags.
    pub if_match: Option<Condition<T>>,
    /// `If-None-Match`. Weak comparison: the weak tags of the list are in it as well.
    pub if_none_match: Option<Condition<T>>,
}

/// Value of one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition<T> {
    /// `*`: any current representation.
    Any,
    /// One of these representations. An empty list matches none.
    Listed(Vec<T>),
}

/// Result of [`Preconditions::evaluate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluation {
    /// The request is performed.
    Passed,
    /// `If-Match` is false: 412.
    IfMatchFailed,
    /// `If-None-Match` is false: 304 for `GET` and `HEAD`, else 412.
    IfNoneMatchFailed,
}

/// Conditions on the version of a stored resource.
pub type VersionPreconditions = Preconditions<i64>;

impl<T> Default for Preconditions<T> {
    fn default() -> Self {
        Self { if_match: None, if_none_match: None }
    }
}

impl<T> Preconditions<T> {
    /// Whether every existing representation satisfies the conditions.
    pub fn accept_any(&self) -> bool {
        matches!(self.if_match, None | Some(Condition::Any)) && self.if_none_match.is_none()
    }
}

impl<T: PartialEq> Preconditions<T> {
    /// Evaluates the conditions in the order of RFC 9110, section 13.2.2, for a target that exists.
    /// `current` is its representation, or `None` if that has no entity tag.
    pub fn evaluate(&self, current: Option<&T>) -> Evaluation {
        if self.if_match.as_ref().is_some_and(|condition| !condition.matches(current)) {
            Evaluation::IfMatchFailed
        } else if self.if_none_match.as_ref().is_some_and(|condition| condition.matches(current)) {
            Evaluation::IfNoneMatchFailed
        } else {
            Evaluation::Passed
        }
    }

    /// Whether a write of a target with the representation `current` is performed.
    pub fn allow_write(&self, current: &T) -> bool {
        self.evaluate(Some(current)) == Evaluation::Passed
    }
}

impl<T: PartialEq> Condition<T> {
    fn matches(&self, current: Option<&T>) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => current.is_some_and(|current| listed.contains(current)),
        }
    }
}

impl VersionPreconditions {
    /// Returns the condition of a write that replaces exactly `version`.
    pub fn expect(version: i64) -> Self {
        Self { if_match: Some(Condition::Listed(vec![version])), if_none_match: None }
    }
}

#[cfg(test)]
mod tests {
    use super::{Condition::Any, Evaluation::*, *};

    fn listed(versions: &[i64]) -> Condition<i64> {
        Condition::Listed(versions.to_vec())
    }

    #[test]
    fn conditions_are_evaluated_in_rfc_order() {
        for (if_match, if_none_match, expected) in [
            (None, None, Passed),
            (Some(Any), None, Passed),
            (Some(listed(&[1, 3])), None, Passed),
            (Some(listed(&[1, 2])), None, IfMatchFailed),
            (Some(listed(&[])), None, IfMatchFailed),
            (None, Some(Any), IfNoneMatchFailed),
            (None, Some(listed(&[1, 3])), IfNoneMatchFailed),
            (None, Some(listed(&[1, 2])), Passed),
            (None, Some(listed(&[])), Passed),
            (Some(listed(&[3])), Some(listed(&[3])), IfNoneMatchFailed),
            (Some(listed(&[2])), Some(listed(&[3])), IfMatchFailed),
            (Some(listed(&[3])), Some(listed(&[2])), Passed),
        ] {
            let conditions = Preconditions { if_match, if_none_match };
            assert_eq!(conditions.evaluate(Some(&3)), expected, "{conditions:?}");
        }
    }

    #[test]
    fn representation_without_tag_matches_only_any() {
        let conditions = |if_match, if_none_match| Preconditions { if_match, if_none_match };
        assert_eq!(conditions(Some(Any), None).evaluate(None), Passed);
        assert_eq!(conditions(Some(listed(&[3])), None).evaluate(None), IfMatchFailed);
        assert_eq!(conditions(None, Some(Any)).evaluate(None), IfNoneMatchFailed);
        assert_eq!(conditions(None, Some(listed(&[3]))).evaluate(None), Passed);
    }

    #[test]
    fn accept_any_needs_no_version() {
        let conditions = |if_match, if_none_match| Preconditions { if_match, if_none_match };
        assert!(VersionPreconditions::default().accept_any() && conditions(Some(Any), None).accept_any());
        assert!(!VersionPreconditions::expect(3).accept_any() && !conditions(None, Some(listed(&[]))).accept_any());
    }
}
