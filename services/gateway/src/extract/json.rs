//! JSON request bodies: media type, size limit, and strict fields (an object; no unknown, repeated
//! or mistyped field).

use std::{error::Error, fmt, marker::PhantomData};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use palisade_middleware::{
    prefetched_body::TooLarge,
    rejection::{Rejection, chain, reasons},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{error::Category, value::RawValue};

/// Media type of JSON.
pub(super) const JSON: &str = "application/json";
/// Maximum size of a body, bytes.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// The request body as `T`, which denies unknown fields. Business rules are not checked here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, _: &S) -> Result<Self, Rejection> {
        from_request(request, &[JSON], JSON).await.map(Self)
    }
}

/// Reads a body of one of these media types, which are `expected` in the error message.
pub(super) async fn from_request<T: DeserializeOwned>(request: Request, media_types: &[&str], expected: &str) -> Result<T, Rejection> {
    let (parts, body) = request.into_parts();
    check_headers(&parts.headers, media_types, expected)?;
    parse(&read(body).await?)
}

/// Rejects a request by its headers, before the body is read.
fn check_headers(headers: &HeaderMap, media_types: &[&str], expected: &str) -> Result<(), Rejection> {
    let unsupported = |detail| Err(Rejection::new(&reasons::UNSUPPORTED_MEDIA_TYPE, detail));
    if !super::singletons::single_value(headers, &CONTENT_TYPE)?.is_some_and(|value| is_json(value, media_types)) {
        return unsupported(format!("header content-type must be {expected} in UTF-8"));
    }
    if !headers.get_all(CONTENT_ENCODING).iter().all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return unsupported("a compressed body is not accepted".to_owned());
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_BODY) { Err(too_large()) } else { Ok(()) }
}

/// Whether the media type is one of `media_types`. UTF-8 is the only charset of JSON (RFC 8259,
/// section 8.1).
fn is_json(content_type: &[u8], media_types: &[&str]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else { return false };
    let mut parts = text.split(';').map(str::trim);
    let is_charset_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => value.trim_matches('"').eq_ignore_ascii_case("utf-8"),
        _ => true,
    };
    let is_accepted = |essence: &str| media_types.iter().any(|accepted| essence.eq_ignore_ascii_case(accepted));
    parts.next().is_some_and(is_accepted) && parts.all(is_charset_utf8)
}

/// Whether the body exceeds the limit of this service, or that of its server.
fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<LengthLimitError>() || cause.is::<TooLarge>())
}

async fn read(body: Body) -> Result<Bytes, Rejection> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if is_too_large(&*error) => Err(too_large()),
        Err(error) => Err(Rejection::new(&reasons::INVALID_BODY, "the body is incomplete").with_source(error)),
    }
}

fn too_large() -> Rejection {
    Rejection::new(&reasons::BODY_TOO_LARGE, format!("the body must not exceed {MAX_BODY} bytes"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let Object(value): Object<T> = parsed.map_err(|error| match error.inner().classify() {
        Category::Data => Rejection::new(&reasons::INVALID_BODY, super::describe_error(&error, "the body")),
        Category::Io | Category::Syntax | Category::Eof => malformed(error.inner()),
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Rejection {
    Rejection::new(&reasons::INVALID_BODY, format!("the body is not well-formed JSON (line {}, column {})", error.line(), error.column()))
}

/// Deserializes `T` from a JSON object only: serde also fills structs from arrays (serde#1587).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Integer of JSON Schema: a number without a fractional part, such as `78`, `78.0` or `7.8e1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Integer(pub(crate) i64);

impl Integer {
    fn parse(number: &str) -> Option<Self> {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{decimals}");
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() || significant == "-" {
            return Some(Self(0));
        }
        let zeros = i64::try_from(digits.len() - significant.len()).ok()? - i64::try_from(decimals.len()).ok()?;
        let zeros = usize::try_from(exponent.parse::<i64>().ok()?.checked_add(zeros)?).ok()?;
        // More digits than a 64-bit number has.
        if zeros > 19 {
            return None;
        }
        format!("{significant}{}", "0".repeat(zeros)).parse().ok().map(Self)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let number = Some(raw.get()).filter(|text| text.starts_with(|first: char| first == '-' || first.is_ascii_digit()));
        number.and_then(Self::parse).ok_or_else(|| de::Error::invalid_type(de::Unexpected::Other("another value"), &"an integer"))
    }
}

/// Deserializes an optional field that must not be `null`.
pub(crate) fn non_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::NumberText;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Basket {
        #[serde(default, deserialize_with = "non_null")]
        price: Option<NumberText>,
        #[serde(default)]
        lines: Vec<Object<Line>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        quantity: Integer,
    }

    fn error(body: &str) -> String {
        let rejection = parse::<Basket>(body.as_bytes()).unwrap_err();
        assert_eq!(rejection.reason(), &reasons::INVALID_BODY);
        rejection.detail().to_owned()
    }

    #[test]
    fn number_keeps_its_text() {
        let basket: Basket = parse(br#" {"price": 12.50, "lines": [{"quantity": 7}]} "#).unwrap();
        assert_eq!(basket.price.unwrap().amount().unwrap().0, 1250);
        assert_eq!(basket.lines[0].0.quantity, Integer(7));
    }

    #[test]
    fn error_names_the_field_and_not_the_value() {
        assert_eq!(error(r#"{"lines": [{"quantity": "seven"}]}"#), "`lines[0].quantity` must be an integer");
        assert_eq!(error(r#"{"lines": [{"quantity": 1.5}]}"#), "`lines[0].quantity` must be an integer");
        assert_eq!(error(r#"{"lines": [{"quantity": 1}, {"quantity": 1, "role": 2}]}"#), "`lines[1].role` is unknown");
        assert_eq!(error(r#"{"lines": null}"#), "`lines` must be an array");
        assert_eq!(error(r#"{"price": null}"#), "`price` must be a number");
        assert_eq!(error(r#"{"price": "12"}"#), "`price` must be a number");
        assert_eq!(error(r#"{"price": 1, "price": 2}"#), "`price` is repeated");
        assert_eq!(error(r#"{"__proto__": {}}"#), "`__proto__` is unknown");
        assert!(error(&format!(r#"{{"{}": 1}}"#, "x".repeat(1000))).len() < 200);
    }

    #[test]
    fn integer_is_a_number_without_fraction() {
        for (text, value) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e999999999999", 0),
            ("78", 78),
            ("78.0", 78),
            ("7.8e1", 78),
            ("7800E-2", 78),
            ("-1.50e+1", -15),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808.0", i64::MIN),
        ] {
            let body: Basket = parse(format!(r#"{{"lines": [{{"quantity": {text}}}]}}"#).as_bytes()).unwrap();
            assert_eq!(body.lines[0].0.quantity, Integer(value), "{text}");
        }
        for text in ["1.5", "78.01", "1e-1", "9223372036854775808", "1e19", "1e400", "1e99999999999999999999", "\"1\"", "true", "null"] {
            let detail = error(&format!(r#"{{"lines": [{{"quantity": {text}}}]}}"#));
            assert_eq!(detail, "`lines[0].quantity` must be an integer", "{text}");
        }
    }

    #[test]
    fn array_is_rejected_as_object() {
        assert_eq!(error("[1, []]"), "the body must be a JSON object");
        assert_eq!(error(r#"{"lines": [[7]]}"#), "`lines[0]` must be a JSON object");
    }

    #[test]
    fn malformed_json_is_rejected() {
        let deep = "[".repeat(100_000);
        let deep = format!(r#"{{"price": {deep}"#);
        for body in
            ["", "{", "{} {}", "{}x", "{\"lines\": [],}", "{'lines': []}", "{\"price\": 01}", "{\"\\ud800\": 1}", "{/**/}", deep.as_str()]
        {
            assert!(error(body).starts_with("the body is not well-formed JSON"), "{body:.40}");
        }
        assert!(parse::<Basket>(b"{\"\xff\": 1}").is_err());
    }

    #[test]
    fn media_type_must_be_json_in_utf8() {
        for text in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"", "application/json; profile=x"]
        {
            assert!(is_json(text.as_bytes(), &[JSON]), "{text}");
        }
        for text in
            ["", "text/plain", "application/json; charset=utf-16", "application/problem+json", "application/jsonp", "multipart/form-data"]
        {
            assert!(!is_json(text.as_bytes(), &[JSON]), "{text}");
        }
    }
}
