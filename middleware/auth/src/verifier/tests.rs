use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::{
    Rules, UserToken,
    jwks::JwksSource,
    keys::{SigningKey, TrustedKey},
    mint_user_token,
};
use palisade_resilience::clock::ManualClock;

mod issuers;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: time::OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

struct Fixture {
    verifier: Arc<Verifier>,
    clock: ManualClock,
    service: SigningKey,
}

fn fixture() -> Fixture {
    let clock = ManualClock::new(NOW);
    let service = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let user = TrustedKey::from_secret(&SECRET.into()).unwrap();
    let issuers = vec![
        Issuer::of_users("idp", "palisade", JwksSource::fixed(vec![user])),
        Issuer::of_service("gateway", "palisade", JwksSource::fixed(vec![service.trusted().unwrap()])),
    ];
    Fixture { verifier: Arc::new(Verifier::new(issuers, Arc::new(clock.clone())).unwrap()), clock, service }
}

fn claims(changes: &Value) -> Value {
    let now = NOW.unix_timestamp();
    let mut claims = json!({"iss": "idp", "aud": "palisade", "sub": "alice", "exp": now + 300, "scope": "a:read b:write"});
    for (name, value) in changes.as_object().unwrap() {
        if value == "absent" {
            claims.as_object_mut().unwrap().remove(name)
        } else {
            claims.as_object_mut().unwrap().insert(name.clone(), value.clone())
        };
    }
    claims
}

/// Encodes a token with this header and these claims, signed as `idp`.
fn token(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// RFC 8725, section 3.7: also in a claim that has no meaning here.
#[tokio::test]
async fn claims_must_be_utf8() {
    let mut payload = claims(&json!({"other": "?"})).to_string().into_bytes();
    for (byte, is_accepted) in [(b'x', true), (0xe6, false)] {
        let at = payload.windows(8).position(|part| part == b"\"other\":").unwrap() + 9;
        payload[at] = byte;
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header().to_string()), URL_SAFE_NO_PAD.encode(&payload));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_eq!(fixture().verifier.verify(&format!("{message}.{signature}")).await.is_ok(), is_accepted, "{byte}");
    }
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

#[tokio::test]
async fn valid_token_yields_principal() {
    let principal = fixture().verifier.verify(&token(&header(), &claims(&json!({"scp": ["c:read"]})))).await.unwrap();
    assert_eq!(principal.subject, "alice");
    assert_eq!(principal.scopes.iter().map(String::as_str).collect::<Vec<_>>(), ["a:read", "b:write", "c:read"]);
    assert_eq!(principal.actor, None);
}

#[tokio::test]
async fn verifier_rejects_invalid_claims() {
    let now = NOW.unix_timestamp();
    let bad = [
        json!({"iss": "absent"}),
        json!({"iss": "other"}),
        json!({"iss": ["idp"]}),
        json!({"iss": 7}),
        json!({"iss": null}),
        json!({"aud": "absent"}),
        json!({"aud": "other"}),
        json!({"aud": ["other"]}),
        json!({"sub": "absent"}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": {"$ne": 1}}),
        json!({"sub": "x".repeat(256)}),
        json!({"sub": "a\nb"}),
        json!({"scope": ["a:read"]}),
        json!({"exp": "absent"}),
        json!({"exp": now.to_string()}),
        json!({"exp": 1e308}),
        json!({"exp": null}),
        json!({"exp": true}),
        json!({"exp": -1}),
        json!({"nbf": now + 31}),
        json!({"nbf": "soon"}),
        json!({"iat": now + 31}),
        json!({"scope": 7}),
    ];
    let fixture = fixture();
    for changes in bad {
        let refused = fixture.verifier.verify(&token(&header(), &claims(&changes))).await;
        let Err(refused) = refused else { panic!("accepted {changes}") };
        let reason = refused.reason();
        assert!([&reasons::UNAUTHENTICATED, &reasons::TOKEN_EXPIRED].contains(&reason), "{changes}");
    }
    for changes in [json!({"aud": ["x", "palisade"]}), json!({"nbf": now + 29}), json!({"exp": 1_900_000_000.5})] {
        fixture.verifier.verify(&token(&header(), &claims(&changes))).await.unwrap_or_else(|error| panic!("{changes}: {error}"));
    }
}

#[tokio::test]
async fn verifier_rejects_invalid_headers() {
    let bad = [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "HS256", "typ": "application/JWT"}),
        json!({"alg": "HS256", "typ": "application/int+jwt"}),
        json!({"alg": "HS512"}),
        json!({"alg": "EdDSA"}),
        json!({"alg": "HS256", "typ": "int+jwt"}),
        json!({"alg": "HS256", "typ": "secevent+jwt"}),
        json!({"alg": "HS256", "typ": "JWT", "crit": ["x"], "x": "1"}),
        json!({"alg": "HS256", "typ": "JWT", "jku": "https://evil.example/jwks"}),
        json!({"alg": "HS256", "typ": "JWT", "x5u": "https://evil.example/x"}),
        json!({"alg": "HS256", "typ": "JWT", "jwk": {"kty": "oct", "k": "AA"}}),
        json!({"alg": "HS256", "typ": "JWT", "b64": false}),
        json!({"alg": "HS256", "typ": "JWT", "zip": "DEF"}),
        json!({"alg": "HS256", "typ": "JWT", "kid": ["a"]}),
        json!([]),
        json!(["HS256", "JWT", null]),
    ];
    let fixture = fixture();
    for header in bad {
        assert!(fixture.verifier.verify(&token(&header, &claims(&json!({})))).await.is_err(), "{header}");
    }
}

#[tokio::test]
async fn verifier_accepts_each_user_type() {
    let fixture = fixture();
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/at+JWT"] {
        fixture
            .verifier
            .verify(&token(&json!({"alg": "HS256", "typ": typ}), &claims(&json!({}))))
            .await
            .unwrap_or_else(|e| panic!("{typ}: {e}"));
    }
}

#[tokio::test]
async fn verifier_rejects_malformed_tokens() {
    let fixture = fixture();
    let good = token(&header(), &claims(&json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let flipped = format!("{message}.{}", signature.chars().rev().collect::<String>());
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), message.split_once('.').unwrap().1);
    for bad in [
        "",
        ".",
        "..",
        "a.b",
        message,
        &format!("{good}.x"),
        &format!("{message}."),
        &flipped,
        &none,
        &"x".repeat(9000),
        &format!("{good}, {good}"),
    ] {
        assert_eq!(fixture.verifier.verify(bad).await.unwrap_err().reason(), &reasons::UNAUTHENTICATED, "{bad}");
    }
}

#[tokio::test]
async fn verifier_limits_token_length_to_8_kib() {
    let fixture = fixture();
    let of_size = |bytes: usize| {
        let padded = |padding: usize| token(&header(), &claims(&json!({"padding": "x".repeat(padding)})));
        (0..bytes).rev().map(padded).find(|token| token.len() <= bytes).unwrap()
    };
    let (fits, longer) = (of_size(MAX_TOKEN_BYTES), of_size(MAX_TOKEN_BYTES + 4));
    assert!(fits.len() > MAX_TOKEN_BYTES - 4 && longer.len() > MAX_TOKEN_BYTES);
    fixture.verifier.verify(&fits).await.unwrap();
    assert_eq!(fixture.verifier.verify(&longer).await.unwrap_err().reason(), &reasons::UNAUTHENTICATED);
}

#[tokio::test]
async fn verifier_rejects_duplicate_claims() {
    let fixture = fixture();
    let payload = claims(&json!({})).to_string();
    let twice = payload.replacen('{', r#"{"sub":"mallory","#, 1);
    for (payload, good) in [(payload, true), (twice, false)] {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header().to_string()), URL_SAFE_NO_PAD.encode(payload));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_eq!(fixture.verifier.verify(&format!("{message}.{signature}")).await.is_ok(), good);
    }
}

#[tokio::test]
async fn cache_entry_expires_and_covers_signature() {
    let fixture = fixture();
    let now = NOW.unix_timestamp();
    for (exp, until) in [(now + 300, now + 60), (now + 10, now + 10)] {
        let token = token(&header(), &claims(&json!({"exp": exp})));
        fixture.verifier.verify(&token).await.unwrap();
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        assert_eq!(fixture.verifier.cache.get(&digest).unwrap().valid_until, until);
        let (message, _) = token.rsplit_once('.').unwrap();
        assert!(fixture.verifier.verify(&format!("{message}.{}", "A".repeat(43))).await.is_err(), "another signature");
    }
}

#[tokio::test]
async fn verifier_cache_is_bounded() {
    let fixture = fixture();
    for number in 0..CACHED_TOKENS + 500 {
        fixture.verifier.verify(&token(&header(), &claims(&json!({"jti": number.to_string()})))).await.unwrap();
    }
    fixture.verifier.cache.run_pending_tasks();
    assert!(fixture.verifier.cache.entry_count() <= CACHED_TOKENS);
}

/// Revokes the listed subjects.
#[derive(Debug, Default)]
struct FakeRevocations(parking_lot::Mutex<Vec<String>>);

impl Revocations for FakeRevocations {
    fn is_revoked(&self, principal: &Principal) -> bool {
        self.0.lock().iter().any(|subject| subject == principal.subject.as_str())
    }
}

#[tokio::test]
async fn verifier_rejects_cached_revoked_token() {
    let revoked = Arc::new(FakeRevocations::default());
    let Fixture { verifier, .. } = fixture();
    let verifier = Arc::new(Arc::into_inner(verifier).unwrap().with_revocations(revoked.clone()));
    let token = token(&header(), &claims(&json!({})));
    verifier.verify(&token).await.unwrap();
    revoked.0.lock().push("alice".to_owned());
    let refused = verifier.verify(&token).await.unwrap_err();
    assert_eq!((refused.reason(), refused.detail()), (&reasons::UNAUTHENTICATED, "the token is revoked"));
    let challenge = refused.headers().iter().find(|(name, _)| name == http::header::WWW_AUTHENTICATE).unwrap();
    assert!(challenge.1.to_str().unwrap().contains("error=\"invalid_token\""));
    revoked.0.lock().clear();
    verifier.verify(&token).await.unwrap();
}

#[tokio::test]
async fn verifier_rejects_cached_expired_token() {
    let fixture = fixture();
    let token = token(&header(), &claims(&json!({})));
    fixture.verifier.verify(&token).await.unwrap();
    fixture.clock.advance(Duration::from_secs(329));
    fixture.verifier.verify(&token).await.expect("30 s of leeway");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.verifier.verify(&token).await.unwrap_err().reason(), &reasons::TOKEN_EXPIRED);
}

#[tokio::test]
async fn verifier_rejects_public_key_as_hmac_secret() {
    let fixture = fixture();
    let public = serde_json::to_string(fixture.service.public_jwk()).unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(crate::INTERNAL_TYPE.to_owned());
    let claims =
        claims(&json!({"iss": "gateway", "iat": NOW.unix_timestamp(), "exp": NOW.unix_timestamp() + 60, "act": {"sub": "gateway"}}));
    let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(public.as_bytes())).unwrap();
    assert!(fixture.verifier.verify(&forged).await.is_err());
}

#[tokio::test]
async fn internal_token_requires_short_lifetime_and_actor() {
    let fixture = fixture();
    let now = NOW.unix_timestamp();
    let sign = |typ: &str, changes: Value| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        let mut all = claims(&json!({"iss": "gateway", "iat": now, "exp": now + 60, "act": {"sub": "gateway"}}));
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jsonwebtoken::encode(&header, &all, &fixture.service.encoding).unwrap()
    };
    let principal = fixture.verifier.verify(&sign("int+jwt", json!({}))).await.unwrap();
    assert_eq!(principal.actor.as_deref(), Some("gateway"));
    for (typ, changes) in [
        ("JWT", json!({})),
        ("int+jwt", json!({"exp": now + 61})),
        ("int+jwt", json!({"iat": null})),
        ("int+jwt", json!({"act": {"sub": "orders"}})),
        ("int+jwt", json!({"act": null})),
    ] {
        assert!(fixture.verifier.verify(&sign(typ, changes.clone())).await.is_err(), "{typ} {changes}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_key_replaces_old_one_after_refresh() {
    let fresh = || SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let (old, new) = (fresh(), fresh());
    let path = std::env::temp_dir().join(format!("palisade-jwks-{}.json", uuid::Uuid::new_v4()));
    let publish = |key: &SigningKey| std::fs::write(&path, serde_json::to_vec(&key.public_jwks()).unwrap()).unwrap();
    let user = UserToken {
        subject: "alice".to_owned(),
        scope: String::new(),
        issuer: "idp".to_owned(),
        audience: "palisade".to_owned(),
        lifetime: Duration::from_hours(1),
    };
    let sign = |key: &SigningKey| mint_user_token(&user, key, NOW.unix_timestamp()).unwrap();
    let keys = JwksSource::from_file(&path);
    let issuer = Issuer::of_users("idp", "palisade", keys);
    let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(ManualClock::new(NOW))).unwrap());

    let unread = verifier.verify(&sign(&old)).await.unwrap_err();
    assert_eq!(unread.reason(), &reasons::UPSTREAM_UNAVAILABLE, "a token cannot be rejected before a set was loaded");
    publish(&old);
    tokio::time::advance(Duration::from_secs(1)).await;
    verifier.verify(&sign(&old)).await.unwrap();

    publish(&new);
    assert_eq!(verifier.verify(&sign(&new)).await.unwrap_err().reason(), &reasons::UNAUTHENTICATED, "the last refresh is too recent");
    tokio::time::advance(Duration::from_secs(30)).await;
    verifier.verify(&sign(&new)).await.unwrap();
    assert!(verifier.verify(&sign(&old)).await.is_err(), "a cached token is invalid after its key was withdrawn");

    std::fs::remove_file(&path).unwrap();
    tokio::time::advance(Duration::from_mins(10)).await;
    verifier.verify(&sign(&new)).await.expect("the last loaded set stays in use");
}
