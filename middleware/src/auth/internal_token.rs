//! Tokens that one service makes for another: for one target, on behalf of one user, for at most a minute.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::HeaderValue;
use moka::sync::Cache;

use super::{
    Principal,
    claims::{UserToken, mint_internal_token},
    keys::SigningKey,
};
use crate::{clock::Clock, rejection::Rejection};

const LIFETIME: Duration = Duration::from_mins(1);
/// A cached token is used for half its life, so that it always has time left when it arrives.
const REUSE_FOR: Duration = Duration::from_secs(30);
const CACHED_TOKENS: u64 = 10_000;

/// What a service may ask of another.
#[derive(Debug, Clone)]
pub enum Grant {
    /// The user's own scopes, and no more.
    Users,
    /// These scopes of the service's own.
    Own(&'static [&'static str]),
}

/// Makes internal tokens, signed with the service's own key.
#[derive(Debug)]
pub struct InternalTokens {
    service: &'static str,
    grant: Grant,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    cache: Cache<(&'static str, String, BTreeSet<String>), HeaderValue>,
}

impl InternalTokens {
    /// Tokens made by `service` (their `iss` and `act`).
    pub fn new(service: &'static str, grant: Grant, key: SigningKey, clock: Arc<dyn Clock>) -> Self {
        let cache = Cache::builder().max_capacity(CACHED_TOKENS).time_to_live(REUSE_FOR).build();
        Self { service, grant, key, clock, cache }
    }

    /// The `Authorization` header of a call to `target` on behalf of `user`; without a user the service speaks for itself.
    pub fn authorization(&self, target: &'static str, user: Option<&Principal>) -> Result<HeaderValue, Rejection> {
        let subject = user.map_or_else(|| self.service.to_owned(), |user| user.subject.clone());
        let scopes = match (&self.grant, user) {
            (Grant::Own(scopes), _) => scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            (Grant::Users, Some(user)) => user.scopes.clone(),
            (Grant::Users, None) => BTreeSet::new(),
        };
        let key = (target, subject, scopes);
        if let Some(value) = self.cache.get(&key) {
            return Ok(value);
        }
        let token = UserToken {
            subject: key.1.clone(),
            scope: key.2.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
            issuer: self.service.to_owned(),
            audience: target.to_owned(),
            lifetime: LIFETIME,
        };
        let token = mint_internal_token(&token, self.service, &self.key, self.clock.now().unix_timestamp()).map_err(Rejection::internal)?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(Rejection::internal)?;
        value.set_sensitive(true);
        self.cache.insert(key, value.clone());
        Ok(value)
    }
}
