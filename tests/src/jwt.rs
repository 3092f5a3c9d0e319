//! Handmade JSON Web Tokens, valid and invalid. A JWT library would refuse to create invalid ones.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use time::OffsetDateTime;

/// Issuer of the tests, trusted by every [`crate::Shop`].
pub const ISSUER: &str = "https://tests.palisade.invalid";

/// HS256 secret of the issuer: 32 bytes, the minimum that is accepted.
pub const SECRET: &str = "an-hmac-secret-of-thirty-2-bytes";

/// Claims of a token that the gateway accepts.
pub fn claims(subject: &str, scope: &str) -> Value {
    let now = now();
    json!({ "iss": ISSUER, "aud": "palisade", "sub": subject, "scope": scope, "iat": now, "exp": now + 7_200 })
}

/// Valid token of the tests' issuer.
pub fn token(subject: &str, scope: &str) -> String {
    sign(&json!({ "alg": "HS256", "typ": "JWT" }), &claims(subject, scope), SECRET.as_bytes())
}

/// Signs any header and claims with HMAC-SHA-256.
pub fn sign(header: &Value, claims: &Value, secret: &[u8]) -> String {
    sign_text(&header.to_string(), &claims.to_string(), secret)
}

/// Same as [`sign`], for texts that are not JSON or that a JSON library would not write.
pub fn sign_text(header: &str, claims: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", encode(mac.finalize().into_bytes()))
}

/// Encodes base64url without padding (RFC 7515 §2).
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the unverified claims of a token.
pub fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}

/// Unix time, seconds.
#[expect(clippy::disallowed_methods, reason = "tests run outside the services and use the wall clock")]
pub fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}
