//! Text validation and normalization.

use palisade_middleware::rejection::Violation;

/// Returns the search text of a product: lower case, identical in every store. Query texts contain
/// no newline, so none matches across the separator.
pub fn searchable(name: &str, description: &str) -> String {
    format!("{}\n{}", normalize_for_search(name), normalize_for_search(description))
}

/// Normalizes text for case-insensitive search.
pub(super) fn normalize_for_search(text: &str) -> String {
    text.to_lowercase()
}

/// Validates a single-line label: not empty, bounded, and without characters that hide or reorder
/// adjacent text.
pub(super) fn validate_single_line(field: &str, text: &str, max: usize) -> Option<Violation> {
    if text.is_empty() {
        return Some(Violation::new(field, "required", "must not be empty"));
    }
    let forbidden = |c: char| c.is_control() || is_bidi_control(c);
    validate(field, text, max, forbidden, "must not contain control or text-direction characters")
}

/// Validates free text with any number of lines, possibly empty.
pub(super) fn validate_multiline(field: &str, text: &str, max: usize) -> Option<Violation> {
    let forbidden = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    validate(field, text, max, forbidden, "must not contain control characters other than newline and tab")
}

fn validate(field: &str, text: &str, max: usize, forbidden: impl Fn(char) -> bool, why: &str) -> Option<Violation> {
    if text.contains(forbidden) {
        Some(Violation::new(field, "invalid_characters", why))
    } else if text.chars().count() > max {
        Some(Violation::new(field, "too_long", format!("must have at most {max} characters")))
    } else {
        None
    }
}

/// Unicode `Bidi_Control` characters, which can make a name display as another one
/// (CVE-2021-42574).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
