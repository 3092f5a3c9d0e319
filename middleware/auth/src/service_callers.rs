//! Recognition of calling services by their internal token, for layers outside authentication.

use std::sync::Arc;

use http::HeaderMap;
use palisade_resilience::trace::sampling::InternalCallers;

use super::{INTERNAL_TYPE, Verifier, authenticate::bearer, claims::TokenHeader, verifier::decode_segment};

/// Services with a valid internal token. Tokens of another type cost no cryptography.
#[derive(Debug)]
pub struct ServiceCallers(pub Arc<Verifier>);

impl InternalCallers for ServiceCallers {
    fn is_internal(&self, headers: &HeaderMap) -> bool {
        let Ok(token) = bearer(headers) else { return false };
        let header = token.split_once('.').and_then(|(header, _)| decode_segment::<TokenHeader>(header));
        header.is_some_and(|header| header.typ.as_deref() == Some(INTERNAL_TYPE))
            && self.0.verify_now(token).is_ok_and(|principal| principal.actor.is_some())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::AUTHORIZATION};
    use palisade_resilience::clock::ManualClock;
    use time::macros::datetime;

    use super::*;
    use crate::{
        InternalTokens, Issuer, Principal, TokenPolicy, UserToken,
        jwks::JwksSource,
        keys::{SigningKey, TrustedKey},
        mint_user_token,
    };

    #[test]
    fn only_a_valid_internal_token_makes_an_internal_caller() {
        const SECRET: &str = "0123456789abcdef0123456789abcdef";
        let clock = Arc::new(ManualClock::new(datetime!(2026-01-01 00:00 UTC)));
        let key = || SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let (own, foreign) = (key(), key());
        let issuers = vec![
            Issuer::of_users("idp", "orders", JwksSource::fixed(vec![TrustedKey::from_secret(&SECRET.into()).unwrap()])),
            Issuer::of_service("gateway", "orders", JwksSource::fixed(vec![own.trusted().unwrap()])),
        ];
        let callers = ServiceCallers(Arc::new(Verifier::new(issuers, clock.clone()).unwrap()));
        let is_internal =
            |values: &[HeaderValue]| callers.is_internal(&values.iter().map(|value| (AUTHORIZATION, value.clone())).collect());
        let internal = |key, target| {
            let tokens = InternalTokens::new("gateway", TokenPolicy::OnBehalfOfUser, key, clock.clone());
            tokens.authorization(target, Some(&Principal::on_behalf_of("idp|alice"))).unwrap()
        };
        let user = UserToken {
            subject: "alice".to_owned(),
            scope: String::new(),
            issuer: "idp".to_owned(),
            audience: "orders".to_owned(),
            lifetime: std::time::Duration::from_mins(5),
        };
        let user_key = key();
        let user = mint_user_token(&user, &user_key, 1_767_225_600).unwrap();
        let valid = internal(own, "orders");
        assert!(is_internal(std::slice::from_ref(&valid)));
        assert!(!is_internal(&[valid.clone(), valid]), "an ambiguous header");
        for other in [internal(foreign, "orders"), format!("Bearer {user}").parse().unwrap(), HeaderValue::from_static("Bearer a.b.c")] {
            assert!(!is_internal(std::slice::from_ref(&other)), "{other:?}");
        }
        assert!(!is_internal(&[]));
    }
}
