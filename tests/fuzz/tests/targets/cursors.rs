//! Cursors, ids, keys of requests and conditions on versions.

use palisade_middleware::{
    cursor::Cursor,
    parse,
    preconditions::{Condition, Evaluation, Preconditions},
};
use palisade_products::product::{Position, Sort};

use crate::targets::input::Input;

/// A cursor opens only to its own position, for its own query. Any other text, also one that
/// differs only in unused bits, is rejected.
pub(crate) fn cursor(input: &[u8]) {
    let mut bytes = Input::new(input);
    let (at, with) = (bytes.u16(), bytes.byte());
    let rest = bytes.rest();
    let (scope, position) = rest.split_at(rest.len().min(usize::from(with % 16)));
    let cursors = Cursor::new(b"fuzz");
    let sealed = cursors.seal(scope, position);
    assert_eq!(cursors.open(scope, &sealed).as_deref(), Ok(position));
    assert!(cursors.open(&[scope, b"x"].concat(), &sealed).is_err());

    let mut changed = sealed.clone().into_bytes();
    let at = usize::from(at) % changed.len();
    changed[at] = with;
    let changed = String::from_utf8_lossy(&changed);
    assert_eq!(cursors.open(scope, &changed).is_ok(), changed == sealed, "{changed} opens like {sealed}");
    for sort in [Sort::Newest, Sort::PriceAsc, Sort::NameDesc] {
        // A decoded position has no second encoding.
        if let Some(decoded) = Position::from_bytes(sort, position) {
            assert_eq!(decoded.to_bytes(), position);
        }
    }
    for foreign in [format!("{sealed}A"), format!("{sealed}="), sealed[1..].to_owned(), String::from_utf8_lossy(position).into_owned()] {
        assert!(cursors.open(scope, &foreign).is_err(), "{foreign}");
    }
}

/// An id has the hyphenated form, and is returned as it was given, in lower case. A key is 1 to 255
/// visible characters, and is returned unchanged.
pub(crate) fn parameters(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let is_id = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() });
    let id = parse::parse_uuid(text).ok().map(|id| id.to_string());
    assert_eq!(id, is_id.then(|| text.to_ascii_lowercase()));
    let is_key = text.len() <= 255 && text.chars().all(|char| ('!'..='~').contains(&char));
    let key = parse::idempotency_key(text.to_owned()).ok().map(Option::unwrap_or_default);
    assert_eq!(key.as_deref(), is_key.then_some(text));
}

fn condition(bytes: &mut Input<'_>) -> Option<Condition<u8>> {
    match bytes.below(4) {
        0 => None,
        1 => Some(Condition::Any),
        _ => Some(Condition::Listed((0..bytes.below(4)).map(|_| bytes.below(4)).collect())),
    }
}

/// Conditions are evaluated in the order of RFC 9110, section 13.2.2: `If-Match` first.
pub(crate) fn preconditions(input: &[u8]) {
    let mut bytes = Input::new(input);
    let conditions = Preconditions { if_match: condition(&mut bytes), if_none_match: condition(&mut bytes) };
    let current = Some(bytes.below(5)).filter(|version| *version < 4);
    let matches = |condition: &Condition<u8>| match condition {
        Condition::Any => true,
        Condition::Listed(tags) => tags.iter().any(|tag| Some(*tag) == current),
    };
    let expected = match (&conditions.if_match, &conditions.if_none_match) {
        (Some(wanted), _) if !matches(wanted) => Evaluation::IfMatchFailed,
        (_, Some(unwanted)) if matches(unwanted) => Evaluation::IfNoneMatchFailed,
        _ => Evaluation::Passed,
    };
    assert_eq!(conditions.evaluate(current.as_ref()), expected);
    assert!(!conditions.accept_any() || expected == Evaluation::Passed);
    if let Some(current) = &current {
        assert_eq!(conditions.allow_write(current), expected == Evaluation::Passed);
    }
}
