//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1). The entity tag of a resource is its
//! version in quotes.

use std::{collections::BTreeSet, fmt::Display};

use axum::extract::FromRequestParts;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{IF_MATCH, IF_NONE_MATCH},
    request::Parts,
};
use palisade_middleware::rejection::{Rejection, reasons};

/// Maximum number of versions in `If-Match`: each may cost a call.
const MAX_VERSIONS: usize = 10;

/// Returns the strong entity tag of `tag`, the version of a resource.
pub(crate) fn etag(tag: impl Display) -> String {
    format!("\"{tag}\"")
}

/// Versions that a write may replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// No header, or `*`: any existing version.
    Any,
    /// One of these. Weak tags and tags that are not a version match nothing and are dropped.
    Versions(BTreeSet<i64>),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Self::read(&parts.headers)
    }
}

impl IfMatch {
    fn read(headers: &HeaderMap) -> Result<Self, Rejection> {
        let Some(Tags::Listed(tags)) = Tags::read(headers, &IF_MATCH)? else { return Ok(Self::Any) };
        let versions: BTreeSet<_> = tags.iter().filter(|tag| !tag.weak).filter_map(Tag::version).collect();
        if versions.len() > MAX_VERSIONS {
            return Err(Rejection::new(&reasons::INVALID_PARAMETER, format!("header if-match must name at most {MAX_VERSIONS} versions")));
        }
        Ok(Self::Versions(versions))
    }

    /// Returns the expected versions to try, one call each, because the service accepts one at a
    /// time. `None` means any.
    pub(crate) fn expected_versions(self) -> Vec<Option<i64>> {
        match self {
            Self::Any => vec![None],
            Self::Versions(versions) => versions.into_iter().map(Some).collect(),
        }
    }
}

/// Entity tags that the client already has.
#[derive(Debug, Clone, Default)]
pub(crate) struct IfNoneMatch(Option<Tags>);

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Self::read(&parts.headers)
    }
}

impl IfNoneMatch {
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Rejection> {
        Tags::read(headers, &IF_NONE_MATCH).map(Self)
    }

    /// Whether the client has this tag (weak comparison).
    pub(crate) fn matches(&self, tag: &str) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Listed(tags)) => tags.iter().any(|listed| listed.opaque == tag),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: String,
}

impl Tag {
    fn version(&self) -> Option<i64> {
        // Canonical form only: "05" is never an entity tag of ours.
        self.opaque.parse().ok().filter(|version: &i64| version.to_string() == self.opaque)
    }
}

impl Tags {
    /// A malformed condition is rejected: ignoring it could overwrite a change that the client
    /// meant to protect.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Rejection> {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        if values.is_empty() {
            return Ok(None);
        }
        let tags = Self::parse(&values);
        tags.map(Some).ok_or_else(|| {
            Rejection::new(&reasons::INVALID_PARAMETER, format!("header {name} must be * or a list of entity tags such as \"3\""))
        })
    }

    fn parse(values: &[&HeaderValue]) -> Option<Self> {
        if let [value] = values
            && value.as_bytes().trim_ascii() == b"*"
        {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        for value in values {
            let mut rest = value.to_str().ok()?.trim();
            while !rest.is_empty() {
                let (tag, after) = tag(rest)?;
                tags.push(tag);
                rest = after.trim_start();
                rest = if rest.is_empty() { rest } else { rest.strip_prefix(',')?.trim_start() };
            }
        }
        (!tags.is_empty()).then_some(Self::Listed(tags))
    }
}

/// Parses the first entity tag of a list and returns the rest. A tag may contain commas.
fn tag(text: &str) -> Option<(Tag, &str)> {
    let (weak, text) = text.strip_prefix("W/").map_or((false, text), |text| (true, text));
    let (opaque, rest) = text.strip_prefix('"')?.split_once('"')?;
    let visible = opaque.bytes().all(|byte| byte.is_ascii_graphic());
    visible.then(|| (Tag { weak, opaque: opaque.to_owned() }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(values: &[&str]) -> Option<Vec<Option<i64>>> {
        let headers = values.iter().map(|value| (IF_MATCH, HeaderValue::from_str(value).unwrap())).collect();
        IfMatch::read(&headers).ok().map(IfMatch::expected_versions)
    }

    fn if_none_match(value: &str, tag: &str) -> bool {
        let headers = [(IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())].into_iter().collect();
        IfNoneMatch::read(&headers).unwrap().matches(tag)
    }

    #[test]
    fn if_match_lists_expected_versions() {
        assert_eq!(if_match(&[]), Some(vec![None]));
        assert_eq!(if_match(&["*"]), Some(vec![None]));
        assert_eq!(if_match(&["\"3\""]), Some(vec![Some(3)]));
        assert_eq!(if_match(&["\"3\", \"5\"", "\"3\""]), Some(vec![Some(3), Some(5)]));
    }

    #[test]
    fn if_match_ignores_weak_and_noncanonical_tags() {
        assert_eq!(if_match(&["W/\"3\", \"03\", \"+3\", \"a,b\""]), Some(vec![]));
    }

    #[test]
    fn malformed_condition_is_rejected() {
        let many = (0..=MAX_VERSIONS).map(|version| etag(i64::try_from(version).unwrap())).collect::<Vec<_>>().join(",");
        for value in ["", "3", "\"3", "\"3\" \"4\"", "*, \"3\"", "w/\"3\"", many.as_str()] {
            assert_eq!(if_match(&[value]), None, "{value}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        assert!(if_none_match("W/\"3\"", "3") && if_none_match("\"1\", \"3\"", "3") && if_none_match("*", "3"));
        assert!(!if_none_match("\"1\", \"03\", \"x\"", "3"));
    }
}
