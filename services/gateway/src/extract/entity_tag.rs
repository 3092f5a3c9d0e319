//! Entity tags and their lists (RFC 9110, sections 8.8.3 and 5.6.1).

use std::fmt::Display;

use palisade_middleware::preconditions::Condition;

/// Opaque part of an entity tag, without its quotes. It may contain any byte from 0x80 on.
pub(crate) type OpaqueTag = Vec<u8>;

/// One element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) weak: bool,
    pub(super) opaque: OpaqueTag,
}

/// Returns the strong entity tag of `opaque`, such as the version of a resource.
pub(crate) fn etag(opaque: impl Display) -> String {
    format!("\"{opaque}\"")
}

/// Parses `*`, or the tags that `accept` keeps. Empty list elements are ignored. Returns `None` for
/// a malformed field.
pub(super) fn parse(field: &[u8], accept: impl Fn(&Tag) -> bool) -> Option<Condition<OpaqueTag>> {
    let mut rest = trim(field);
    if rest == b"*" {
        return Some(Condition::Any);
    }
    let mut tags = Vec::new();
    while let Some(first) = rest.first() {
        if *first == b',' {
            rest = trim(&rest[1..]);
            continue;
        }
        let (tag, after) = tag(rest)?;
        if accept(&tag) {
            tags.push(tag.opaque);
        }
        rest = trim(after);
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    Some(Condition::Listed(tags))
}

/// Parses the first entity tag and returns the rest. A tag may contain commas.
fn tag(text: &[u8]) -> Option<(Tag, &[u8])> {
    let (weak, text) = text.strip_prefix(b"W/").map_or((false, text), |text| (true, text));
    let text = text.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| *byte == b'"')?;
    let (opaque, rest) = text.split_at(end);
    // etagc: visible ASCII or obs-text.
    let is_legal = opaque.iter().all(|byte| byte.is_ascii_graphic() || *byte >= 0x80);
    is_legal.then(|| (Tag { weak, opaque: opaque.to_vec() }, &rest[1..]))
}

/// Removes optional whitespace (OWS): spaces and tabs.
fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(field: &[u8]) -> Option<Vec<OpaqueTag>> {
        match parse(field, |_| true)? {
            Condition::Any => None,
            Condition::Listed(tags) => Some(tags),
        }
    }

    #[test]
    fn list_is_parsed_with_empty_elements() {
        for (field, tags) in [
            (&b"\"3\""[..], vec![&b"3"[..]]),
            (b"\"3\",\"5\"", vec![b"3", b"5"]),
            (b" , \"3\" ,,\t, W/\"5\" ,", vec![b"3", b"5"]),
            (b"\"a,b\", \"\"", vec![b"a,b", b""]),
            (b"\"\x80\xff\\\"", vec![b"\x80\xff\\"]),
            (b"", vec![]),
            (b" ,, ", vec![]),
        ] {
            let expected = tags.into_iter().map(<[u8]>::to_vec).collect();
            assert_eq!(listed(field), Some(expected), "{}", field.escape_ascii());
        }
        assert_eq!(parse(b" *\t", |_| true), Some(Condition::Any));
    }

    #[test]
    fn malformed_list_is_rejected() {
        for field in
            ["3", "\"3", "\"3\" \"4\"", "\"3\"\"4\"", "*, \"3\"", "*,*", "w/\"3\"", "W/ \"3\"", "W/3", "\"a b\"", "\"\x7f\"", "'3'"]
        {
            assert_eq!(parse(field.as_bytes(), |_| true), None, "{field}");
        }
    }
}
