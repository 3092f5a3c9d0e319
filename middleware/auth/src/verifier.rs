//! Token verification: a strict JWT profile, and a bounded cache of verified tokens.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Validation;
use moka::sync::Cache;
use rustc_hash::FxBuildHasher;
use sha2::{Digest, Sha256};

use super::{
    INTERNAL_TYPE, Principal, Revocations,
    claims::{Claims, TokenHeader},
    jwks::JwksSource,
};
use palisade_resilience::{
    clock::Clock,
    rejection::{Rejection, reasons},
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

/// Trusted token issuer.
#[derive(Debug)]
pub struct Issuer {
    /// Required `iss`, compared exactly.
    pub name: String,
    /// Required member of `aud`.
    pub audience: String,
    /// Whether the issuer is a service of this system. Its tokens are `int+jwt`, have `act`, and
    /// live at most 60 s. Other issuers sign user tokens (`JWT` or `at+jwt`).
    pub internal: bool,
    /// Keys that verify its signatures.
    pub keys: JwksSource,
}

impl Issuer {
    /// Creates an issuer of user tokens for people and scripts, such as an identity provider.
    pub fn of_users(name: impl Into<String>, audience: impl Into<String>, keys: JwksSource) -> Self {
        Self { name: name.into(), audience: audience.into(), internal: false, keys }
    }

    /// Creates an issuer for a calling service; `name` is its service name.
    pub fn of_service(name: impl Into<String>, audience: impl Into<String>, keys: JwksSource) -> Self {
        Self { internal: true, ..Self::of_users(name, audience, keys) }
    }
}

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
/// let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock)));
/// # Ok::<(), palisade_middleware::auth::keys::KeyError>(())
/// ```
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
    clock: Arc<dyn Clock>,
    /// Keyed by the SHA-256 of the whole token, including its signature. Only verified tokens are
    /// inserted, so a fast hash of the digest is safe.
    cache: Cache<[u8; 32], Cached, FxBuildHasher>,
    revocations: Option<Arc<dyn Revocations>>,
    revoked: metrics::Counter,
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
    /// Creates a verifier for tokens of `issuers`, without a revocation list.
    pub fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Self {
        super::install_crypto();
        let cache = Cache::builder().max_capacity(CACHED_TOKENS).time_to_live(CACHE_TTL).build_with_hasher(FxBuildHasher);
        let revoked = metrics::counter!("palisade.auth.tokens.revoked");
        Self { issuers, clock, cache, revocations: None, revoked }
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
        let verifier = self.clone();
        // Runs to completion even if the caller goes away: a cancelled refresh would delay the next
        // one by the minimum interval.
        palisade_resilience::task::run_to_completion(async move { verifier.issuers[issuer].keys.refresh().await }).await;
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
            && cached.generation == self.issuers[cached.issuer].keys.generation()
            && now < cached.valid_until
        {
            return self.check_revoked(cached.principal);
        }
        let VerifiedToken { principal, issuer, generation } = self.check(token, now)?;
        let principal = Arc::new(principal);
        let valid_until = principal.expires_at.min(now.saturating_add(CACHE_SECONDS));
        self.cache.insert(digest, Cached { principal: principal.clone(), issuer, generation, valid_until });
        if self.issuers[issuer].keys.is_stale() {
            let verifier = self.clone();
            drop(palisade_resilience::task::spawn(async move { verifier.issuers[issuer].keys.refresh().await }));
        }
        self.check_revoked(principal)
    }

    /// Applied after the cache, so that a revocation affects cached tokens at once.
    fn check_revoked(&self, principal: Arc<Principal>) -> Result<Arc<Principal>, VerifyError> {
        if self.revocations.as_ref().is_none_or(|revocations| !revocations.is_revoked(&principal)) {
            return Ok(principal);
        }
        self.revoked.increment(1);
        Err(VerifyError::Rejected(challenge(Rejection::new(&reasons::UNAUTHENTICATED, "the token is revoked"), "invalid_token")))
    }

    /// Rejects a token with an unknown key, or returns a retryable rejection if the JWKS was never
    /// loaded.
    fn unknown_key(&self, issuer: usize) -> Rejection {
        if self.issuers[issuer].keys.is_loaded() {
            return invalid_token("unknown key");
        }
        Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the keys of the token issuer are not available")
            .with_retry_after(Duration::from_secs(1))
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_timestamp()
    }

    fn check(&self, token: &str, now: i64) -> Result<VerifiedToken, VerifyError> {
        let reject = |cause: &str| VerifyError::Rejected(invalid_token(cause));
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(reject("not three segments"));
        };
        let header: TokenHeader = decode_segment(header).ok_or_else(|| reject("invalid header"))?;
        if let Some(name) = header.forbidden() {
            return Err(reject(name));
        }
        let unverified: Claims = decode_segment(payload).ok_or_else(|| reject("invalid claims"))?;
        let internal = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case(INTERNAL_TYPE));
        let user = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt"));
        let issuer = self.issuers.iter().position(|issuer| issuer.name == unverified.iss && if issuer.internal { internal } else { user });
        let Some(index) = issuer else { return Err(reject("unknown issuer or type")) };
        let issuer = &self.issuers[index];
        // Read before the key lookup: if the set is replaced in between, the result must belong to
        // the old generation.
        let generation = issuer.keys.generation();
        let find_key = || issuer.keys.find_key(header.kid.as_deref(), header.alg);
        let key = match find_key() {
            Some(key) => key,
            None if issuer.keys.may_refresh() => return Err(VerifyError::UnknownKey(index)),
            // Second lookup: a concurrent refresh may have just finished.
            None => find_key().ok_or_else(|| VerifyError::Rejected(self.unknown_key(index)))?,
        };
        let mut validation = Validation::new(key.algorithm);
        // The library checks the signature and the string claims; the times are checked below with
        // our clock.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        validation.set_issuer(&[&issuer.name]);
        validation.set_audience(&[&issuer.audience]);
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
        let claims = claims.map_err(|error| VerifyError::Rejected(invalid_token("verification").with_source(error)))?.claims;
        debug_assert_eq!(claims.aud.0, unverified.aud.0);
        if now >= claims.exp.saturating_add(LEEWAY) {
            return Err(VerifyError::Rejected(expired()));
        }
        if claims.nbf.is_some_and(|nbf| nbf > now + LEEWAY) || claims.iat.is_some_and(|iat| iat > now + LEEWAY) {
            return Err(reject("not yet valid"));
        }
        if !(1..=128).contains(&claims.sub.len()) || claims.sub.chars().any(char::is_control) {
            return Err(reject("invalid sub"));
        }
        if issuer.internal {
            let short_lived = claims.iat.is_some_and(|iat| claims.exp.saturating_sub(iat) <= MAX_INTERNAL_LIFETIME);
            if !short_lived || claims.act.as_ref().is_none_or(|act| act.sub != issuer.name) {
                return Err(reject("internal token with a long lifetime or an actor other than its issuer"));
            }
        }
        let scopes = claims.scopes();
        let actor = if issuer.internal { claims.act.map(|act| act.sub) } else { None };
        let principal = Principal {
            subject: claims.sub,
            scopes,
            actor,
            issuer: claims.iss,
            token_id: claims.jti,
            issued_at: claims.iat,
            expires_at: claims.exp,
        };
        Ok(VerifiedToken { principal, issuer: index, generation })
    }
}

fn decode_segment<T: serde::de::DeserializeOwned>(encoded: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Rejection with the same detail for every cause. The cause is only logged.
fn invalid_token(cause: &str) -> Rejection {
    challenge(Rejection::new(&reasons::UNAUTHENTICATED, "the token is not valid here").with_source(cause.to_owned()), "invalid_token")
}

fn expired() -> Rejection {
    challenge(Rejection::new(&reasons::TOKEN_EXPIRED, "the token has expired"), "invalid_token")
}

fn challenge(rejection: Rejection, error: &'static str) -> Rejection {
    super::authenticate::challenge(rejection, Some(error), None)
}

#[cfg(test)]
mod tests;
