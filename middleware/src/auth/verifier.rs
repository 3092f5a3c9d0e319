//! The strict profile that every token must meet, and a bounded cache of those that did.

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
use crate::{
    clock::Clock,
    rejection::{Rejection, reasons},
};

/// RFC 6750 tokens longer than this are refused before any crypto.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Clock difference that is forgiven, seconds.
const LEEWAY: i64 = 30;
/// How long a verified token is believed without another look, at most; not beyond its end.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// As [`CACHE_FOR`], seconds.
const CACHE_SECONDS: i64 = CACHE_TTL.as_secs().cast_signed();
const CACHED_TOKENS: u64 = 10_000;
/// Internal tokens live at most this long, seconds.
const MAX_INTERNAL_LIFETIME: i64 = 60;

/// Somebody whose tokens are believed.
#[derive(Debug)]
pub struct Issuer {
    /// `iss`, to the letter.
    pub name: String,
    /// `aud` must have this.
    pub audience: String,
    /// A service of ours: its tokens are `int+jwt`, carry `act`, live at most 60 s. All others are user tokens (`JWT` or `at+jwt`).
    pub internal: bool,
    /// The keys it signs with.
    pub keys: JwksSource,
}

impl Issuer {
    /// One who makes tokens for people and scripts, such as an identity provider.
    pub fn of_users(name: impl Into<String>, audience: impl Into<String>, keys: JwksSource) -> Self {
        Self { name: name.into(), audience: audience.into(), internal: false, keys }
    }

    /// A service that calls this one, by the name that it calls itself.
    pub fn of_service(name: impl Into<String>, audience: impl Into<String>, keys: JwksSource) -> Self {
        Self { internal: true, ..Self::of_users(name, audience, keys) }
    }
}

/// Verifies bearer tokens of any of its issuers.
///
/// ```
/// use std::sync::Arc;
///
/// use palisade_middleware::{auth::{Issuer, Verifier, jwks::KeySet, keys::TrustedKey}, clock::SystemClock};
///
/// let key = TrustedKey::from_secret(&"0123456789abcdef0123456789abcdef".into())?;
/// let issuer = Issuer::of_users("https://id.example", "shop", KeySet::fixed(vec![key]));
/// let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock)));
/// # Ok::<(), palisade_middleware::auth::keys::KeyError>(())
/// ```
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
    clock: Arc<dyn Clock>,
    /// By SHA-256 of the whole token, signature included; only what was verified gets in, so that a fast hash of the digest will do.
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

/// Why a token was not believed at once.
#[derive(Debug)]
pub(super) enum VerifyError {
    Rejected(Rejection),
    /// The key is not known yet: read the issuer's key set and try again.
    UnknownKey(usize),
}

/// What a token that meets the profile says, with the issuer that vouches for it and the generation of its keys.
struct VerifiedToken {
    principal: Principal,
    issuer: usize,
    generation: u64,
}

impl Verifier {
    /// Believes the tokens of `issuers`. None is revoked before its end.
    pub fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Self {
        super::install_crypto();
        let cache = Cache::builder().max_capacity(CACHED_TOKENS).time_to_live(CACHE_TTL).build_with_hasher(FxBuildHasher);
        let revoked = metrics::counter!("palisade.auth.tokens.revoked");
        Self { issuers, clock, cache, revocations: None, revoked }
    }

    /// Refuses what `revocations` names, though it is a good token. Asked for every request.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Arc<dyn Revocations>) -> Self {
        self.revocations = Some(revocations);
        self
    }

    /// Who the bearer of `token` is. Reads key sets when it must.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Arc<Principal>, Rejection> {
        let issuer = match self.verify_now(token) {
            Err(VerifyError::UnknownKey(issuer)) => issuer,
            Err(VerifyError::Rejected(rejection)) => return Err(rejection),
            Ok(principal) => return Ok(principal),
        };
        let verifier = self.clone();
        // Detached: a caller who goes away must not take the read with him, for the next one comes only after a pause.
        crate::task::run_to_completion(async move { verifier.issuers[issuer].keys.refresh().await }).await;
        self.verify_now(token).map_err(|unverified| match unverified {
            VerifyError::Rejected(rejection) => rejection,
            VerifyError::UnknownKey(issuer) => self.unknown_key(issuer),
        })
    }

    /// As [`Self::verify`] without waiting for anything: the way of nearly every request.
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
            drop(crate::task::spawn(async move { verifier.issuers[issuer].keys.refresh().await }));
        }
        self.check_revoked(principal)
    }

    /// Behind the cache, so that what was believed a moment ago is refused at once.
    fn check_revoked(&self, principal: Arc<Principal>) -> Result<Arc<Principal>, VerifyError> {
        if self.revocations.as_ref().is_none_or(|revocations| !revocations.is_revoked(&principal)) {
            return Ok(principal);
        }
        self.revoked.increment(1);
        Err(VerifyError::Rejected(challenge(Rejection::new(&reasons::UNAUTHENTICATED, "the token was revoked"), "invalid_token")))
    }

    /// The key is not in the set; of a set that was never read nothing can be said.
    fn unknown_key(&self, issuer: usize) -> Rejection {
        if self.issuers[issuer].keys.is_loaded() {
            return invalid_token("no such key");
        }
        Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the keys of the token's issuer are not available")
            .with_retry_after(Duration::from_secs(1))
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_timestamp()
    }

    fn check(&self, token: &str, now: i64) -> Result<VerifiedToken, VerifyError> {
        let reject = |cause: &str| VerifyError::Rejected(invalid_token(cause));
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(reject("not three parts"));
        };
        let header: TokenHeader = decode_segment(header).ok_or_else(|| reject("unreadable header"))?;
        if let Some(name) = header.forbidden() {
            return Err(reject(name));
        }
        let unverified: Claims = decode_segment(payload).ok_or_else(|| reject("unreadable claims"))?;
        let internal = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case(INTERNAL_TYPE));
        let user = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt"));
        let issuer = self.issuers.iter().position(|issuer| issuer.name == unverified.iss && if issuer.internal { internal } else { user });
        let Some(index) = issuer else { return Err(reject("unknown issuer or type")) };
        let issuer = &self.issuers[index];
        // Before the key is looked up: were the set replaced meanwhile, this look would count as one at the old set.
        let generation = issuer.keys.generation();
        let find_key = || issuer.keys.find_key(header.kid.as_deref(), header.alg);
        let key = match find_key() {
            Some(key) => key,
            None if issuer.keys.may_refresh() => return Err(VerifyError::UnknownKey(index)),
            // Once more: whoever was reading the set may have been done just now.
            None => find_key().ok_or_else(|| VerifyError::Rejected(self.unknown_key(index)))?,
        };
        let mut validation = Validation::new(key.algorithm);
        // The signature and the strings are checked by the library, the times by our clock below.
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
            return Err(reject("not valid yet"));
        }
        if !(1..=128).contains(&claims.sub.len()) || claims.sub.chars().any(char::is_control) {
            return Err(reject("unusable sub"));
        }
        if issuer.internal {
            let short_lived = claims.iat.is_some_and(|iat| claims.exp.saturating_sub(iat) <= MAX_INTERNAL_LIFETIME);
            if !short_lived || claims.act.as_ref().is_none_or(|act| act.sub != issuer.name) {
                return Err(reject("an internal token without a short life or its maker as actor"));
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

/// One answer for every cause: which it was is nobody's business but the log's.
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
