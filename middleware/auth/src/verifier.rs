//! Token verification: a strict JWT profile, and a bounded cache of verified tokens.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use moka::sync::Cache;
use rustc_hash::FxBuildHasher;
use sha2::{Digest, Sha256};

use super::{
    INTERNAL_TYPE, Issuer, Principal, Revocations,
    claims::{Claims, TokenHeader},
    issuer::Issuers,
    rejection_counters::RejectionCounters,
};
use palisade_resilience::{
    clock::Clock,
    rejection::{Rejection, reasons},
    setting::Invalid,
};

/// Maximum length of a bearer token (RFC 6750), bytes. Longer tokens are rejected before any
/// crypto.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Tolerated clock difference, seconds.
const LEEWAY: i64 = 30;
/// Maximum time a verified token is cached. Limited by its expiry.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// As [`CACHE_TTL`], seconds.
const CACHE_SECONDS: i64 = CACHE_TTL.as_secs().cast_signed();
const CACHED_TOKENS: u64 = 10_000;
/// Maximum lifetime of internal tokens, seconds.
const MAX_INTERNAL_LIFETIME: i64 = 60;
/// JOSE `typ` of user tokens (RFC 7519, RFC 9068 section 4), compared without case.
const USER_TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];
/// Detail of the rejection of a revoked token.
pub(super) const REVOKED: &str = "the token is revoked";
/// Causes of invalid tokens that are counted apart.
pub(super) const UNKNOWN_ISSUER: &str = "unknown issuer";
pub(super) const UNKNOWN_KEY: &str = "unknown key";
pub(super) const SIGNATURE: &str = "signature";
/// Longest time between two checks of an open stream.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Verifies bearer tokens of all configured issuers.
///
/// ```
/// use std::sync::Arc;
///
/// use palisade_middleware::{
///     auth::{Issuer, Verifier, jwks::JwksSource, keys::TrustedKey},
///     clock::SystemClock,
/// };
///
/// let key = TrustedKey::from_secret(&"0123456789abcdef0123456789abcdef".into())?;
/// let issuer = Issuer::of_users("https://id.example", "shop", JwksSource::fixed(vec![key]));
/// let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Verifier {
    issuers: Issuers,
    clock: Arc<dyn Clock>,
    /// Keyed by the SHA-256 of the whole token, including its signature. Only verified tokens are
    /// inserted, so a fast hash of the digest is safe.
    cache: Cache<[u8; 32], Cached, FxBuildHasher>,
    revocations: Option<Arc<dyn Revocations>>,
    revoked: metrics::Counter,
    rejections: RejectionCounters,
}

#[derive(Debug, Clone)]
struct Cached {
    principal: Arc<Principal>,
    issuer: usize,
    generation: u64,
    valid_until: i64,
}

/// Reason why a token could not be verified from the cached keys.
#[derive(Debug)]
pub(super) enum VerifyError {
    Rejected(Rejection),
    /// Unknown key id: refresh the JWKS of this issuer and verify again.
    UnknownKey(usize),
}

/// Verified token: its principal, the index of its issuer, and the generation of the keys.
struct VerifiedToken {
    principal: Principal,
    issuer: usize,
    generation: u64,
}

impl Verifier {
    /// Creates a verifier for tokens of `issuers`, without a revocation list. Fails if two issuers
    /// share their `iss` or their subjects.
    pub fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<Self, Invalid> {
        super::install_crypto();
        let issuers = Issuers::new(issuers)?;
        let cache = Cache::builder().max_capacity(CACHED_TOKENS).time_to_live(CACHE_TTL).build_with_hasher(FxBuildHasher);
        let revoked = palisade_resilience::counter!("palisade.auth.tokens.revoked");
        Ok(Self { issuers, clock, cache, revocations: None, revoked, rejections: RejectionCounters::new() })
    }

    /// Rejects tokens that `revocations` lists. Checked for every request.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Arc<dyn Revocations>) -> Self {
        self.revocations = Some(revocations);
        self
    }

    /// Verifies `token` and returns its principal. Refreshes the JWKS if needed.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Arc<Principal>, Rejection> {
        let issuer = match self.verify_now(token) {
            Err(VerifyError::UnknownKey(issuer)) => issuer,
            Err(VerifyError::Rejected(rejection)) => return Err(rejection),
            Ok(principal) => return Ok(principal),
        };
        if !self.issuers.get(issuer).keys.refresh().await {
            return Err(keys_unavailable());
        }
        self.verify_now(token).map_err(|unverified| match unverified {
            VerifyError::Rejected(rejection) => rejection,
            VerifyError::UnknownKey(issuer) => self.unknown_key(issuer),
        })
    }

    /// As [`Self::verify`] without waiting: the path of nearly all requests.
    pub(super) fn verify_now(self: &Arc<Self>, token: &str) -> Result<Arc<Principal>, VerifyError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VerifyError::Rejected(invalid_token("longer than 8 KiB")));
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = self.now();
        if let Some(cached) = self.cache.get(&digest)
            && cached.generation == self.issuers.get(cached.issuer).keys.generation()
            && now < cached.valid_until
        {
            return self.check_revoked(cached.principal);
        }
        let VerifiedToken { principal, issuer, generation } = self.check(token, now)?;
        let principal = Arc::new(principal);
        let valid_until = principal.expires_at.min(now.saturating_add(CACHE_SECONDS));
        self.cache.insert(digest, Cached { principal: principal.clone(), issuer, generation, valid_until });
        self.issuers.get(issuer).keys.refresh_if_stale();
        self.check_revoked(principal)
    }

    /// Applied after the cache, so that a revocation affects cached tokens at once.
    fn check_revoked(&self, principal: Arc<Principal>) -> Result<Arc<Principal>, VerifyError> {
        if !self.is_revoked(&principal) {
            return Ok(principal);
        }
        self.revoked.increment(1);
        Err(VerifyError::Rejected(revoked()))
    }

    /// Counts a request that authentication rejected.
    pub(super) fn count_rejection(&self, rejection: &Rejection) {
        self.rejections.count(rejection);
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        self.revocations.as_ref().is_some_and(|revocations| revocations.is_revoked(principal))
    }

    /// Checks whether a stream that was opened with the token of `principal` may stay open. Returns
    /// the time until the next check.
    ///
    /// The stream of a service has no limit here: the service that opened it closes it when the
    /// token of its user ends.
    pub(super) fn check_open_stream(&self, principal: &Principal) -> Result<Duration, Rejection> {
        if principal.actor.is_some() {
            return Ok(Duration::MAX);
        }
        let left = principal.expires_at.saturating_add(LEEWAY).saturating_sub(self.now());
        if left <= 0 {
            return Err(expired());
        }
        if self.is_revoked(principal) {
            self.revoked.increment(1);
            return Err(revoked());
        }
        Ok(STREAM_CHECK_INTERVAL.min(Duration::from_secs(left.unsigned_abs())))
    }

    /// Rejects a token with an unknown key, or returns a retryable rejection if the JWKS was never
    /// loaded.
    fn unknown_key(&self, issuer: usize) -> Rejection {
        if self.issuers.get(issuer).keys.is_loaded() { invalid_token(UNKNOWN_KEY) } else { keys_unavailable() }
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_timestamp()
    }

    fn check(&self, token: &str, now: i64) -> Result<VerifiedToken, VerifyError> {
        let reject = |cause: &str| VerifyError::Rejected(invalid_token(cause));
        let Some((message, signature)) = token.rsplit_once('.') else { return Err(reject("not three segments")) };
        let Some((header, payload)) = message.split_once('.').filter(|(_, payload)| !payload.contains('.')) else {
            return Err(reject("not three segments"));
        };
        let header: TokenHeader = decode_segment(header).ok_or_else(|| reject("invalid header"))?;
        if let Some(name) = header.forbidden() {
            return Err(reject(name));
        }
        let claims: Claims = decode_segment(payload).ok_or_else(|| reject("invalid claims"))?;
        let Some((index, issuer)) = self.issuers.find(&claims.iss) else { return Err(reject(UNKNOWN_ISSUER)) };
        if !accepts_type(issuer, header.typ.as_deref()) {
            return Err(reject("typ is not the one of this issuer"));
        }
        // Read before the key lookup: if the set is replaced in between, the result must belong to
        // the old generation.
        let generation = issuer.keys.generation();
        let find_key = || issuer.keys.find_key(header.kid.as_deref(), header.alg);
        let key = match find_key() {
            Some(key) => key,
            None if issuer.keys.may_refresh() => {
                // Anybody can name a new key. Only a token that could be valid is worth a refresh.
                let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| header.alg.has_signature_length(bytes.len()));
                if signature.is_none() {
                    return Err(reject("no signature"));
                }
                check_claims(issuer, &claims, now).map_err(VerifyError::Rejected)?;
                return Err(VerifyError::UnknownKey(index));
            }
            // Second lookup: a concurrent refresh may have just finished.
            None => find_key().ok_or_else(|| VerifyError::Rejected(self.unknown_key(index)))?,
        };
        match key.verifies(message, signature) {
            Ok(true) => {}
            Ok(false) => return Err(reject(SIGNATURE)),
            Err(error) => return Err(VerifyError::Rejected(invalid_token(SIGNATURE).with_source(error))),
        }
        check_claims(issuer, &claims, now).map_err(VerifyError::Rejected)?;
        let foreign = |error| VerifyError::Rejected(invalid_token("sub or jti").with_source(error));
        let principal = Principal {
            subject: self.issuers.subject(issuer, &claims.sub).map_err(foreign)?,
            scopes: issuer.granted(&claims),
            token_id: claims.jti.map(|jti| self.issuers.token_id(issuer, &jti)).transpose().map_err(foreign)?,
            actor: if issuer.internal { claims.act.map(|act| act.sub) } else { None },
            issuer: claims.iss,
            issued_at: claims.iat,
            expires_at: claims.exp,
        };
        Ok(VerifiedToken { principal, issuer: index, generation })
    }
}

/// Whether a token of `issuer` may have this `typ`.
fn accepts_type(issuer: &Issuer, typ: Option<&str>) -> bool {
    let accepted: &[&str] = if issuer.internal { &[INTERNAL_TYPE] } else { &USER_TYPES };
    typ.map_or(issuer.rules.typ_optional, |typ| accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(typ)))
}

/// Checks everything but the signature and the names.
fn check_claims(issuer: &Issuer, claims: &Claims, now: i64) -> Result<(), Rejection> {
    if !claims.aud.contains(&issuer.audience) {
        return Err(invalid_token("aud"));
    }
    if claims.has_scope_array() && !issuer.rules.scope_as_array {
        return Err(invalid_token("scope is an array"));
    }
    // No issuer existed before 1970: not an expired token, but a forged or broken one.
    if claims.exp < 0 {
        return Err(invalid_token("exp"));
    }
    if now >= claims.exp.saturating_add(LEEWAY) {
        return Err(expired());
    }
    if claims.nbf.is_some_and(|nbf| nbf > now + LEEWAY) || claims.iat.is_some_and(|iat| iat > now + LEEWAY) {
        return Err(invalid_token("not yet valid"));
    }
    if issuer.internal {
        let short_lived = claims.iat.is_some_and(|iat| claims.exp.saturating_sub(iat) <= MAX_INTERNAL_LIFETIME);
        if !short_lived || claims.act.as_ref().is_none_or(|act| act.sub != issuer.name) {
            return Err(invalid_token("internal token with a long lifetime or an actor other than its issuer"));
        }
    }
    Ok(())
}

/// Decodes a segment, which must be a JSON object in UTF-8 (RFC 8725, section 3.7): serde also
/// reads a struct from an array, and skips any bytes in members that it ignores.
pub(super) fn decode_segment<T: serde::de::DeserializeOwned>(encoded: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let text = std::str::from_utf8(&json).ok()?;
    text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Rejection of a token of an issuer whose keys were never loaded.
fn keys_unavailable() -> Rejection {
    Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the keys of the token issuer are not available")
        .with_retry_after(Duration::from_secs(1))
}

/// Rejection with the same detail for every cause. The cause is only logged.
fn invalid_token(cause: &str) -> Rejection {
    challenge(Rejection::new(&reasons::UNAUTHENTICATED, "the token is not valid here").with_source(cause.to_owned()), "invalid_token")
}

fn revoked() -> Rejection {
    challenge(Rejection::new(&reasons::UNAUTHENTICATED, REVOKED), "invalid_token")
}

fn expired() -> Rejection {
    challenge(Rejection::new(&reasons::TOKEN_EXPIRED, "the token has expired"), "invalid_token")
}

fn challenge(rejection: Rejection, error: &'static str) -> Rejection {
    super::authenticate::challenge(rejection, Some(error), None)
}

#[cfg(test)]
mod tests;
