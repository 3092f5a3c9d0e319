//! Rules of issuers, open streams, and tokens that start a refresh.

use super::*;

/// Verifier of the issuers `idp` and `partner` with one key and these rules.
fn two_issuers(idp: Rules, partner: Rules) -> Arc<Verifier> {
    let keys = || JwksSource::fixed(vec![TrustedKey::from_secret(&SECRET.into()).unwrap()]);
    let issuers = vec![
        Issuer::of_users("idp", "palisade", keys()).with_rules(idp),
        Issuer::of_users("partner", "palisade", keys()).with_rules(partner),
    ];
    Arc::new(Verifier::new(issuers, Arc::new(ManualClock::new(NOW))).unwrap())
}

#[tokio::test]
async fn equal_subs_of_two_issuers_are_two_subjects() {
    let partner = Rules { subject_prefix: "partner:".to_owned(), ..Rules::default() };
    let revoked = Arc::new(FakeRevocations::default());
    let verifier = Arc::into_inner(two_issuers(Rules::default(), partner)).unwrap().with_revocations(revoked.clone());
    let verifier = Arc::new(verifier);
    let token = |iss: &str, sub: &str| token(&header(), &claims(&json!({"iss": iss, "sub": sub, "jti": "7"})));
    let principal = verifier.verify(&token("idp", "1001")).await.unwrap();
    assert_eq!((principal.subject.as_str(), principal.token_id.as_deref()), ("1001", Some("7")));
    let principal = verifier.verify(&token("partner", "1001")).await.unwrap();
    assert_eq!((principal.subject.as_str(), principal.token_id.as_deref()), ("partner:1001", Some("partner:7")));
    verifier.verify(&token("idp", "partner:1001")).await.expect_err("a subject of the partner");
    revoked.0.lock().push("partner:1001".to_owned());
    verifier.verify(&token("idp", "1001")).await.expect("another user");
    verifier.verify(&token("partner", "1001")).await.expect_err("the revoked user");
}

#[tokio::test]
async fn issuer_grants_only_its_allowed_scopes() {
    let allowed_scopes = Some(["a:read".to_owned()].into());
    let partner = Rules { subject_prefix: "partner:".to_owned(), allowed_scopes, ..Rules::default() };
    let verifier = two_issuers(Rules::default(), partner);
    for (iss, scopes) in [("idp", &["a:read", "b:write", "c:read"][..]), ("partner", &["a:read"])] {
        let principal = verifier.verify(&token(&header(), &claims(&json!({"iss": iss, "scp": ["c:read"]})))).await.unwrap();
        assert_eq!(principal.scopes.iter().map(String::as_str).collect::<Vec<_>>(), scopes, "{iss}");
    }
}

#[tokio::test]
async fn switches_of_issuer_relax_type_and_scope() {
    let lax = Rules { subject_prefix: "lax:".to_owned(), typ_optional: true, scope_as_array: true, ..Rules::default() };
    let verifier = two_issuers(Rules::default(), lax);
    let untyped = json!({"alg": "HS256"});
    let array = json!({"scope": ["a:read", "b:write"]});
    for (header, changes) in [(&untyped, &json!({})), (&header(), &array)] {
        verifier.verify(&token(header, &claims(changes))).await.expect_err("the strict issuer");
        let mut changes = changes.clone();
        changes["iss"] = "partner".into();
        let principal = verifier.verify(&token(header, &claims(&changes))).await.unwrap();
        assert_eq!(principal.scopes.len(), 2);
    }
    verifier
        .verify(&token(&json!({"alg": "HS256", "typ": "int+jwt"}), &claims(&json!({"iss": "partner"}))))
        .await
        .expect_err("another type");
}

#[tokio::test]
async fn open_stream_ends_with_its_token() {
    let Fixture { verifier, clock, service } = fixture();
    let revoked = Arc::new(FakeRevocations::default());
    let verifier = Arc::new(Arc::into_inner(verifier).unwrap().with_revocations(revoked.clone()));
    let principal = verifier.verify(&token(&header(), &claims(&json!({})))).await.unwrap();
    assert_eq!(verifier.check_open_stream(&principal).unwrap(), STREAM_CHECK_INTERVAL);
    revoked.0.lock().push("alice".to_owned());
    assert_eq!(verifier.check_open_stream(&principal).unwrap_err().detail(), "the token is revoked");
    revoked.0.lock().clear();
    clock.advance(Duration::from_secs(329));
    assert_eq!(verifier.check_open_stream(&principal).unwrap(), Duration::from_secs(1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(verifier.check_open_stream(&principal).unwrap_err().reason(), &reasons::TOKEN_EXPIRED);
    // The stream of a service ends when its caller closes it.
    let internal = Principal { actor: Some("gateway".to_owned()), ..(*principal).clone() };
    verifier.check_open_stream(&internal).unwrap();
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn implausible_tokens_start_no_refresh() {
    let path = std::env::temp_dir().join(format!("palisade-jwks-{}.json", uuid::Uuid::new_v4()));
    let keys = JwksSource::from_file(&path);
    let verifier = Arc::new(Verifier::new(vec![Issuer::of_users("idp", "palisade", keys)], Arc::new(ManualClock::new(NOW))).unwrap());
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({"alg": "EdDSA", "typ": "JWT", "kid": "new"});
    let signature = URL_SAFE_NO_PAD.encode([0; 64]);
    for (changes, signature) in [
        (json!({}), ""),
        (json!({}), "AAAA"),
        (json!({}), "!"),
        (json!({"exp": NOW.unix_timestamp() - 31}), &*signature),
        (json!({"aud": "other"}), &*signature),
        (json!({"nbf": NOW.unix_timestamp() + 31}), &*signature),
    ] {
        let token = format!("{}.{}.{signature}", encode(&head), encode(&claims(&changes)));
        assert!(matches!(verifier.verify_now(&token), Err(VerifyError::Rejected(_))), "{changes} {signature}");
    }
    let token = format!("{}.{}.{signature}", encode(&head), encode(&claims(&json!({}))));
    assert!(matches!(verifier.verify_now(&token), Err(VerifyError::UnknownKey(0))));
}
