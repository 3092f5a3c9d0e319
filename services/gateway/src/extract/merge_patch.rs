//! JSON merge patches (RFC 7396).

use axum::extract::{FromRequest, Request};
use http::{HeaderName, HeaderValue};
use palisade_middleware::rejection::{Rejection, reasons};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::json;

/// Media type of a merge patch. `application/json` is accepted as well.
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The request body as `T`, which denies unknown fields and whose fields are [`Member`]s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergePatch<T>(pub(crate) T);

/// Member of a merge patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Member<T> {
    /// The value stays.
    #[default]
    Absent,
    /// The value is removed.
    Null,
    /// The new value.
    Given(T),
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for MergePatch<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, _: &S) -> Result<Self, Rejection> {
        let expected = "application/merge-patch+json or application/json";
        let patch = json::from_request(request, &[MERGE_PATCH, json::JSON], expected).await;
        patch.map(Self).map_err(|rejection| {
            if *rejection.reason() != reasons::UNSUPPORTED_MEDIA_TYPE {
                return rejection;
            }
            // RFC 5789, section 2.2.
            let supported = HeaderValue::from_static("application/merge-patch+json, application/json");
            rejection.with_header(HeaderName::from_static("accept-patch"), supported)
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Given))
    }
}

impl<T> Member<T> {
    /// Returns the new value. Adds the name of a removed member to `removed`.
    pub(crate) fn given(self, name: &str, removed: &mut Vec<String>) -> Option<T> {
        match self {
            Self::Absent => None,
            Self::Null => {
                removed.push(name.to_owned());
                None
            }
            Self::Given(value) => Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{extract::Integer, money::NumberText};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Patch {
        #[serde(default)]
        name: Member<String>,
        #[serde(default)]
        price: Member<NumberText>,
        #[serde(default)]
        quantity: Member<Integer>,
    }

    fn parse(text: &str) -> Result<Patch, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn member_is_absent_null_or_given() {
        let patch = parse(r#"{"name": null, "price": 12.50}"#).unwrap();
        let mut removed = Vec::new();
        assert_eq!(patch.name.given("name", &mut removed), None);
        assert_eq!(patch.price.given("price", &mut removed).unwrap().amount().unwrap().0, 1250);
        assert_eq!((patch.quantity, removed), (Member::Absent, vec!["name".to_owned()]));
        assert_eq!(parse(r#"{"quantity": 7.0}"#).unwrap().quantity, Member::Given(Integer(7)));
        for text in [r#"{"name": 7}"#, r#"{"quantity": "7"}"#, r#"{"quantity": 1.5}"#, r#"{"price": "1"}"#, r#"{"stock": 1}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
