//! Which text a client may give us to keep and show.

use palisade_middleware::rejection::Violation;

/// What a product is found by: without case, and the same in every store. No search text holds the newline in the middle,
/// so none matches across.
pub fn searchable(name: &str, description: &str) -> String {
    format!("{}\n{}", normalize_for_search(name), normalize_for_search(description))
}

/// Text without case.
pub(super) fn normalize_for_search(text: &str) -> String {
    text.to_lowercase()
}

/// A line that is shown beside others: present, short, and nothing in it that hides or reorders its neighbours.
pub(super) fn validate_single_line(field: &str, text: &str, max: usize) -> Option<Violation> {
    if text.is_empty() {
        return Some(Violation::new(field, "required", "must not be empty"));
    }
    let forbidden = |c: char| c.is_control() || is_bidi_control(c);
    validate(field, text, max, forbidden, "must not contain control or text-direction characters")
}

/// Free text of any number of lines, perhaps empty.
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

/// Unicode `Bidi_Control`: they can make a name read as another (CVE-2021-42574).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
