//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1). The entity tag of a resource is its
//! version in quotes; a page has a digest instead.

use std::future::Future;

use axum::{
    Json,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CACHE_CONTROL, IF_MATCH, IF_NONE_MATCH},
    request::Parts,
};
use palisade_middleware::{
    preconditions::{Condition, Evaluation},
    rejection::{Rejection, reasons},
};
use palisade_proto::preconditions::v1 as proto;
use serde::Serialize;

use super::entity_tag::{self, OpaqueTag, Tag};

/// `Cache-Control` of what changes asynchronously or belongs to one user.
pub(crate) const NO_STORE: &str = "no-store";

/// Conditions of a request on entity tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Preconditions(palisade_middleware::preconditions::Preconditions<OpaqueTag>);

/// Result of a conditional read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The client receives the representation.
    Changed,
    /// The client has the current representation: 304.
    NotModified,
}

impl<S: Send + Sync> FromRequestParts<S> for Preconditions {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Self::read(&parts.headers)
    }
}

impl Preconditions {
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Rejection> {
        // Entity tags of this API are strong: in a strong comparison a weak tag matches none.
        let if_match = condition(headers, &IF_MATCH, |tag| !tag.weak)?;
        let if_none_match = condition(headers, &IF_NONE_MATCH, |_| true)?;
        Ok(Self(palisade_middleware::preconditions::Preconditions { if_match, if_none_match }))
    }

    /// Evaluates the conditions of a `GET` or `HEAD`. `tag` is the current entity tag; `None` if
    /// the representation has none.
    pub(crate) fn check_read(&self, tag: Option<&str>) -> Result<Read, Rejection> {
        match self.0.evaluate(tag.map(|tag| tag.as_bytes().to_vec()).as_ref()) {
            Evaluation::Passed => Ok(Read::Changed),
            Evaluation::IfNoneMatchFailed => Ok(Read::NotModified),
            Evaluation::IfMatchFailed => Err(version_mismatch()),
        }
    }

    /// Returns the response to a `GET` or `HEAD` of a representation without an entity tag, which
    /// caches do not store.
    pub(crate) fn unstored(&self, body: impl Serialize) -> Result<Response, Rejection> {
        let headers = [(CACHE_CONTROL, NO_STORE)];
        Ok(match self.check_read(None)? {
            Read::Changed => (headers, Json(body)).into_response(),
            Read::NotModified => (StatusCode::NOT_MODIFIED, headers).into_response(),
        })
    }

    /// Evaluates the conditions of a `POST` to a collection, which exists and has no entity tag.
    pub(crate) fn check_post(&self) -> Result<(), Rejection> {
        if self.0.evaluate(None) == Evaluation::Passed { Ok(()) } else { Err(version_mismatch()) }
    }

    /// Returns the conditions for a service, which evaluates them in the step that writes. `None`
    /// if every version is accepted.
    pub(crate) fn to_proto(&self) -> Option<proto::Preconditions> {
        let versions = |condition: &Condition<OpaqueTag>| match condition {
            Condition::Any => proto::Versions { any: true, versions: Vec::new() },
            // Tags that are not a version match nothing.
            Condition::Listed(tags) => proto::Versions { any: false, versions: tags.iter().filter_map(version).collect() },
        };
        let conditions = proto::Preconditions {
            if_match: self.0.if_match.as_ref().map(versions),
            if_none_match: self.0.if_none_match.as_ref().map(versions),
        };
        (!self.0.accept_any()).then_some(conditions)
    }

    /// Runs a write of a service. The second argument is `expected_version` for replicas of the
    /// previous release, which accept one version a call and ignore the other conditions.
    pub(crate) async fn guard<T, F: Future<Output = Result<T, Rejection>>>(
        &self,
        write: impl Fn(Option<proto::Preconditions>, Option<i64>) -> F,
    ) -> Result<T, Rejection> {
        let conditions = self.to_proto();
        let listed = conditions.as_ref().and_then(|conditions| conditions.if_match.as_ref()).filter(|versions| !versions.any);
        let mut attempts: Vec<_> = match listed {
            None => vec![None],
            Some(versions) => versions.versions.iter().copied().map(Some).collect(),
        };
        attempts.dedup();
        attempts.truncate(MAX_ATTEMPTS);
        // An empty list is still sent: a missing target is `not_found`.
        if attempts.is_empty() {
            attempts.push(Some(NO_VERSION));
        }
        let mut mismatch = version_mismatch();
        for expected in attempts {
            match write(conditions.clone(), expected).await {
                Err(rejection) if *rejection.reason() == reasons::VERSION_MISMATCH => mismatch = rejection,
                result => return result,
            }
        }
        Err(mismatch)
    }
}

/// Maximum number of calls for one list of versions.
const MAX_ATTEMPTS: usize = 10;
/// A version that no resource has.
const NO_VERSION: i64 = i64::MAX;

fn version_mismatch() -> Rejection {
    Rejection::new(&reasons::VERSION_MISMATCH, "a condition of if-match or if-none-match is false")
}

/// A malformed condition is rejected: ignoring it could overwrite a change that the client meant to
/// protect. Several lines are one list.
fn condition(headers: &HeaderMap, name: &HeaderName, accept: impl Fn(&Tag) -> bool) -> Result<Option<Condition<OpaqueTag>>, Rejection> {
    let lines: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    entity_tag::parse(&lines.join(&b","[..]), accept).map(Some).ok_or_else(|| {
        Rejection::new(&reasons::INVALID_PARAMETER, format!("header {name} must be * or a list of entity tags such as \"3\""))
    })
}

/// Returns the version in an entity tag. Canonical form only: "05" is never a tag of ours.
fn version(opaque: &OpaqueTag) -> Option<i64> {
    let text = std::str::from_utf8(opaque).ok()?;
    text.parse().ok().filter(|version: &i64| version.to_string() == text)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(name: &HeaderName, lines: &[&[u8]]) -> Result<Preconditions, Rejection> {
        Preconditions::read(&lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line).unwrap())).collect())
    }

    fn if_match(lines: &[&str]) -> Option<Vec<i64>> {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        Some(read(&IF_MATCH, &lines).unwrap().to_proto()?.if_match.unwrap().versions)
    }

    #[test]
    fn if_match_lists_strong_canonical_versions() {
        assert_eq!((if_match(&[]), if_match(&["*"])), (None, None));
        assert_eq!(if_match(&["\"3\", \"5\"", ",\"3\""]), Some(vec![3, 5, 3]));
        assert_eq!(if_match(&["W/\"3\", \"03\", \"+3\", \"a,b\""]), Some(vec![]));
    }

    #[test]
    fn reads_compare_if_none_match_weakly() {
        for line in [&b"W/\"3\""[..], b"\"1\", \"3\"", b"*", b"\"\xff\", \"3\""] {
            assert_eq!(read(&IF_NONE_MATCH, &[line]).unwrap().check_read(Some("3")).unwrap(), Read::NotModified);
        }
        assert_eq!(read(&IF_NONE_MATCH, &[b"\"1\"", b"\"03\", \"x\""]).unwrap().check_read(Some("3")).unwrap(), Read::Changed);
        assert!(read(&IF_MATCH, &[b"W/\"3\""]).unwrap().check_read(Some("3")).is_err());
        assert_eq!(read(&IF_MATCH, &[b"\"3\""]).unwrap().check_read(Some("3")).unwrap(), Read::Changed);
    }

    #[test]
    fn lines_form_one_list() {
        assert!(read(&IF_MATCH, &[b"*", b"\"3\""]).is_err() && read(&IF_MATCH, &[b"*", b"*"]).is_err());
        assert!(read(&IF_MATCH, &[b"\"3", b"4\""]).is_ok(), "one tag with a comma");
        assert!(read(&IF_MATCH, &[b"\"3\"", b"4"]).is_err());
    }

    #[test]
    fn post_evaluates_the_collection() {
        assert!(read(&IF_MATCH, &[b"*"]).unwrap().check_post().is_ok() && read(&IF_NONE_MATCH, &[b"\"3\""]).unwrap().check_post().is_ok());
        assert!(
            read(&IF_MATCH, &[b"\"3\""]).unwrap().check_post().is_err() && read(&IF_NONE_MATCH, &[b"*"]).unwrap().check_post().is_err()
        );
    }
}
