//! Internal tokens: signed by one service for one target on behalf of one user, valid for at most
//! one minute.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::HeaderValue;
use moka::{Equivalent, sync::Cache};

use super::{
    Principal, Subject,
    claims::{UserToken, mint_internal_token},
    keys::SigningKey,
};
use palisade_resilience::{clock::Clock, rejection::Rejection};

const LIFETIME: Duration = Duration::from_mins(1);
/// Reuse time of a cached token: half its lifetime, so that at least 30 s remain on arrival.
const REUSE_TTL: Duration = Duration::from_secs(30);
const CACHED_TOKENS: u64 = 10_000;

/// Scopes of the internal tokens of a service.
#[derive(Debug, Clone)]
pub enum TokenPolicy {
    /// The user's scopes only.
    OnBehalfOfUser,
    /// These scopes of the service itself.
    Service(&'static [&'static str]),
}

/// Signs internal tokens with the service's own key, and caches them.
#[derive(Debug)]
pub struct InternalTokens {
    service: &'static str,
    /// Subject of calls without a user.
    own_subject: Subject,
    policy: TokenPolicy,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    cache: Cache<Key, HeaderValue>,
}

/// Cache key of an internal token.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    target: &'static str,
    subject: Subject,
    /// The user's scopes; empty under [`TokenPolicy::Service`], whose scopes are constant.
    scopes: BTreeSet<String>,
}

/// Borrowed form of [`Key`] for allocation-free lookups.
#[derive(Hash)]
struct BorrowedKey<'a> {
    target: &'static str,
    subject: &'a Subject,
    scopes: &'a BTreeSet<String>,
}

static NO_SCOPES: BTreeSet<String> = BTreeSet::new();

impl Equivalent<Key> for BorrowedKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.target == key.target && *self.subject == key.subject && *self.scopes == key.scopes
    }
}

impl InternalTokens {
    /// Creates a token source for `service`, which becomes `iss` and `act`.
    pub fn new(service: &'static str, policy: TokenPolicy, key: SigningKey, clock: Arc<dyn Clock>) -> Self {
        let cache = Cache::builder().max_capacity(CACHED_TOKENS).time_to_live(REUSE_TTL).build();
        Self { service, own_subject: service.into(), policy, key, clock, cache }
    }

    /// Returns the `Authorization` header for a call to `target` on behalf of `user`, or of the
    /// service itself if `None`.
    pub fn authorization(&self, target: &'static str, user: Option<&Principal>) -> Result<HeaderValue, Rejection> {
        let subject = user.map_or(&self.own_subject, |user| &user.subject);
        let scopes = match (&self.policy, user) {
            (TokenPolicy::OnBehalfOfUser, Some(user)) => &user.scopes,
            (TokenPolicy::OnBehalfOfUser, None) | (TokenPolicy::Service(_), _) => &NO_SCOPES,
        };
        let lookup = BorrowedKey { target, subject, scopes };
        if let Some(value) = self.cache.get(&lookup) {
            return Ok(value);
        }
        let scope = match &self.policy {
            TokenPolicy::Service(own) => own.join(" "),
            TokenPolicy::OnBehalfOfUser => scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
        };
        let token = UserToken {
            subject: subject.to_string(),
            scope,
            issuer: self.service.to_owned(),
            audience: target.to_owned(),
            lifetime: LIFETIME,
        };
        let token = mint_internal_token(&token, self.service, &self.key, self.clock.now().unix_timestamp()).map_err(Rejection::internal)?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(Rejection::internal)?;
        value.set_sensitive(true);
        self.cache.insert(Key { target, subject: subject.clone(), scopes: scopes.clone() }, value.clone());
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use palisade_resilience::clock::ManualClock;

    #[test]
    fn internal_token_cached_per_target_and_subject() {
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let key = || SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let user = |subject: &'static str, scope: &str| Principal { scopes: [scope.to_owned()].into(), ..Principal::on_behalf_of(subject) };
        for policy in [TokenPolicy::OnBehalfOfUser, TokenPolicy::Service(&["products:reserve"])] {
            let tokens = InternalTokens::new("gateway", policy.clone(), key(), Arc::new(clock.clone()));
            let header = |target: &'static str, user: Option<&Principal>| {
                // A token signed at another time differs, so equal tokens prove a cache hit.
                clock.advance(Duration::from_secs(1));
                tokens.authorization(target, user).unwrap()
            };
            let first = header("orders", Some(&user("alice", "orders:read")));
            assert_eq!(header("orders", Some(&user("alice", "orders:read"))), first);
            assert_ne!(header("products", Some(&user("alice", "orders:read"))), first);
            assert_ne!(header("orders", Some(&user("bob", "orders:read"))), first);
            assert_ne!(header("orders", None), first);
            let with_other_scope = header("orders", Some(&user("alice", "orders:write")));
            assert_eq!(
                with_other_scope == first,
                matches!(policy, TokenPolicy::Service(_)),
                "the cache key includes the user's scopes only if the token does"
            );
        }
    }
}
