//! Path and query parameters. The query is strict: no unknown, repeated or mistyped parameter.

use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, Path},
};
use http::request::Parts;
use palisade_middleware::rejection::{Rejection, reasons};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Unexpected},
};
use url::form_urlencoded;

/// Length of the hyphenated form of a UUID (8-4-4-4-12), the only accepted one. `Uuid` also parses
/// other forms.
const HYPHENATED: usize = 36;

/// Maximum page size.
const MAX_LIMIT: u32 = 100;

/// The `{id}` of a route, a UUID.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) uuid::Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let id = parts.extract::<Path<String>>().await.ok().and_then(|Path(text)| parse_uuid(&text));
        id.map(Self).ok_or_else(|| {
            Rejection::new(&reasons::INVALID_PARAMETER, "the id must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
        })
    }
}

/// Query parameters as `T`, which denies unknown fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        parse(parts.uri.query().unwrap_or_default()).map(Self).map_err(|detail| Rejection::new(&reasons::INVALID_PARAMETER, detail))
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, String> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| super::describe_error(&error, "the query"))
}

/// UUID in the hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) uuid::Uuid);

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = parse_uuid(&String::deserialize(deserializer)?);
        id.map(Self).ok_or_else(|| D::Error::invalid_value(Unexpected::Other("text"), &"a UUID"))
    }
}

fn parse_uuid(text: &str) -> Option<uuid::Uuid> {
    Some(text).filter(|text| text.len() == HYPHENATED).and_then(|text| uuid::Uuid::try_parse(text).ok())
}

/// Page size, 1 to [`MAX_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) u32);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let limit = digits.and_then(|digits| digits.parse().ok()).filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.map(Self).ok_or_else(|| D::Error::invalid_value(Unexpected::Other("text"), &"an integer from 1 to 100"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Eq)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Page {
        limit: Option<Limit>,
        is_last: Option<bool>,
        sort: Option<Sort>,
        product: Option<Uuid>,
    }

    #[derive(Debug, Deserialize, PartialEq, Eq)]
    #[serde(rename_all = "snake_case")]
    enum Sort {
        Newest,
        Oldest,
    }

    fn error(query: &str) -> String {
        parse::<Page>(query).unwrap_err()
    }

    #[test]
    fn all_parameters_are_optional() {
        assert_eq!(
            parse("limit=100&sort=oldest"),
            Ok(Page { limit: Some(Limit(100)), is_last: None, sort: Some(Sort::Oldest), product: None })
        );
        assert_eq!(parse(""), Ok(Page { limit: None, is_last: None, sort: None, product: None }));
    }

    #[test]
    fn limit_must_be_an_integer_from_1_to_100() {
        for value in ["0", "-1", "101", "1e9", "abc", "1.5", "", "%201", "%2B1", "99999999999"] {
            assert_eq!(error(&format!("limit={value}")), "`limit` must be an integer from 1 to 100", "{value}");
        }
    }

    #[test]
    fn error_names_the_parameter_and_not_the_value() {
        assert_eq!(error("limit=1&limit=2"), "`limit` is repeated");
        assert_eq!(error("limit[$gt]=1"), "`limit[$gt]` is unknown");
        assert_eq!(error("sort=random"), "`sort` must be `newest` or `oldest`");
        assert_eq!(error("isLast=perhaps"), "`isLast` is not valid");
        for id in ["", "1", "01890a5dac96774bbcceb302099a8057", "{01890a5d-ac96-774b-bcce-b302099a8057}"] {
            assert_eq!(error(&format!("product={id}")), "`product` must be a UUID");
        }
    }
}
