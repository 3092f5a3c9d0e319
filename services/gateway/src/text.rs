//! Texts of upstream messages.

/// Returns `None` for an empty text: proto3 does not distinguish it from an absent one.
pub(crate) fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
