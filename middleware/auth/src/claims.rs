//! JWT header and claims: strict deserialization, and signing of own tokens.

use std::{collections::BTreeSet, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::keys::{Algorithm as KeyAlgorithm, SigningKey};

/// JOSE header. Unknown parameters are ignored (RFC 7515); the verifier rejects those it would have
/// to understand.
#[derive(Debug, Deserialize)]
pub(super) struct TokenHeader {
    pub(super) alg: KeyAlgorithm,
    pub(super) typ: Option<String>,
    pub(super) kid: Option<String>,
    #[serde(default)]
    pub(super) crit: IsPresent,
    #[serde(default)]
    pub(super) jku: IsPresent,
    #[serde(default)]
    pub(super) x5u: IsPresent,
    #[serde(default)]
    pub(super) jwk: IsPresent,
    #[serde(default)]
    pub(super) x5c: IsPresent,
    #[serde(default)]
    pub(super) b64: IsPresent,
    #[serde(default)]
    pub(super) enc: IsPresent,
    #[serde(default)]
    pub(super) zip: IsPresent,
}

impl TokenHeader {
    /// Returns the first header parameter that points to a foreign key or changes the meaning of
    /// the signature.
    pub(super) fn forbidden(&self) -> Option<&'static str> {
        let all = [
            ("crit", &self.crit),
            ("jku", &self.jku),
            ("x5u", &self.x5u),
            ("jwk", &self.jwk),
            ("x5c", &self.x5c),
            ("b64", &self.b64),
            ("enc", &self.enc),
            ("zip", &self.zip),
        ];
        all.into_iter().find(|(_, present)| present.0).map(|(name, _)| name)
    }
}

/// Whether a JSON member is present, with any value.
#[derive(Debug, Default)]
pub(super) struct IsPresent(bool);

impl<'de> Deserialize<'de> for IsPresent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: StringOrVec,
    #[serde(deserialize_with = "numeric_date")]
    pub(super) exp: i64,
    #[serde(default, deserialize_with = "optional_numeric_date")]
    pub(super) nbf: Option<i64>,
    #[serde(default, deserialize_with = "optional_numeric_date")]
    pub(super) iat: Option<i64>,
    #[serde(default)]
    pub(super) jti: Option<String>,
    #[serde(default)]
    scope: Option<StringOrVec>,
    #[serde(default)]
    scp: Option<StringOrVec>,
    #[serde(default)]
    pub(super) act: Option<Actor>,
}

impl Claims {
    /// Union of `scope` (RFC 9068, space-separated) and `scp` (a list).
    pub(super) fn scopes(&self) -> BTreeSet<String> {
        let all = self.scope.iter().chain(&self.scp).flat_map(StringOrVec::as_slice);
        all.flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
    }

    /// Whether `scope` is an array, which RFC 9068 does not allow.
    pub(super) fn has_scope_array(&self) -> bool {
        matches!(self.scope, Some(StringOrVec::Many(_)))
    }
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Actor {
    pub(super) sub: String,
}

/// A string, or an array of strings.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum StringOrVec {
    One(String),
    Many(Vec<String>),
}

impl StringOrVec {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.as_slice().iter().any(|member| member == text)
    }
}

/// Parses an RFC 7519 `NumericDate`: seconds since 1970, fractions truncated.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    if let Some(seconds) = number.as_i64() {
        return Ok(seconds);
    }
    // Above 2^53 a float does not resolve single seconds.
    let seconds = number.as_f64().filter(|seconds| seconds.abs() < 9.0e15);
    #[expect(clippy::cast_possible_truncation, reason = "range checked above")]
    seconds.map(|seconds| seconds as i64).ok_or_else(|| de::Error::custom("not a NumericDate"))
}

fn optional_numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    numeric_date(deserializer).map(Some)
}

/// Claims of a user token, for a person or a script. Created by `palisade token`.
#[derive(Debug, Clone)]
pub struct UserToken {
    /// `sub`.
    pub subject: String,
    /// `scope`, space-separated.
    pub scope: String,
    /// `iss`.
    pub issuer: String,
    /// `aud`: the intended recipient.
    pub audience: String,
    /// Time until the token expires.
    pub lifetime: Duration,
}

#[derive(Serialize)]
struct TokenClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor>,
}

/// Signs a user token with an Ed25519 key. `now` is in seconds since 1970.
pub fn mint_user_token(token: &UserToken, key: &SigningKey, now: i64) -> Result<String, jsonwebtoken::errors::Error> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(key.id.clone());
    sign(&header, token, None, now, &key.encoding)
}

pub(super) fn mint_internal_token(
    token: &UserToken,
    actor: &str,
    key: &SigningKey,
    now: i64,
) -> Result<String, jsonwebtoken::errors::Error> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(super::INTERNAL_TYPE.to_owned());
    header.kid = Some(key.id.clone());
    sign(&header, token, Some(Actor { sub: actor.to_owned() }), now, &key.encoding)
}

fn sign(
    header: &Header,
    token: &UserToken,
    act: Option<Actor>,
    now: i64,
    key: &EncodingKey,
) -> Result<String, jsonwebtoken::errors::Error> {
    // Internal tokens omit `nbf` and `jti`: they are sent with every call, start at once, and
    // expire within a minute, before a revocation is worthwhile.
    let internal = act.is_some();
    let claims = TokenClaims {
        iss: &token.issuer,
        sub: &token.subject,
        aud: &token.audience,
        iat: now,
        nbf: (!internal).then_some(now),
        exp: now.saturating_add(i64::try_from(token.lifetime.as_secs()).unwrap_or(i64::MAX)),
        jti: (!internal).then(|| uuid::Uuid::new_v4().to_string()),
        scope: &token.scope,
        act,
    };
    jsonwebtoken::encode(header, &claims, key)
}
