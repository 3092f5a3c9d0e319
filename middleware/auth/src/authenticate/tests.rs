use time::macros::datetime;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    Issuer, UserToken,
    jwks::JwksSource,
    keys::{Algorithm, SigningKey},
    mint_user_token,
};
use palisade_resilience::{clock::ManualClock, method_table::Method};

const NOW: time::OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

static PROTECTED: Method = Method::http("GET", "/closed", Access::Scope("a:read"));
static PUBLIC: Method = Method::http("GET", "/open", Access::Public);

fn fresh_key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

fn verifier_with(keys: JwksSource) -> Arc<Verifier> {
    let issuer = Issuer::of_users("idp", "shop", keys);
    Arc::new(Verifier::new(vec![issuer], Arc::new(ManualClock::new(NOW))).unwrap())
}

fn claims(issuer: &str) -> UserToken {
    UserToken {
        subject: "alice".to_owned(),
        scope: String::new(),
        issuer: issuer.to_owned(),
        audience: "shop".to_owned(),
        lifetime: std::time::Duration::from_mins(1),
    }
}

fn token(key: &SigningKey) -> String {
    mint_user_token(&claims("idp"), key, NOW.unix_timestamp()).unwrap()
}

/// Sends a request with these `authorization` headers; returns the subject that the handler of
/// `method` sees.
async fn authenticated_subject(verifier: &Arc<Verifier>, method: &'static Method, headers: &[&str]) -> Result<Option<String>, Rejection> {
    let mut request = Request::new(());
    for value in headers {
        request.headers_mut().append(header::AUTHORIZATION, HeaderValue::try_from(*value).unwrap());
    }
    request.extensions_mut().insert(Context { method: Some(method), ..Context::background() });
    let handler = service_fn(async |request: Request<()>| {
        let principal = Context::of(&request).and_then(|context| context.principal.clone());
        Ok::<_, Rejection>(principal.map(|principal| principal.subject.to_string()))
    });
    AuthenticateLayer(verifier.clone()).layer(handler).oneshot(request).await
}

#[tokio::test]
async fn authenticate_requires_exactly_one_bearer_token() {
    let key = fresh_key();
    let verifier = verifier_with(JwksSource::fixed(vec![key.trusted().unwrap()]));
    let good = format!("Bearer {}", token(&key));
    for good in [good.clone(), good.replace("Bearer", "bEARER"), good.replace(' ', "   ")] {
        assert_eq!(authenticated_subject(&verifier, &PROTECTED, &[&good]).await.unwrap().as_deref(), Some("alice"));
    }
    let bare = good.replace("Bearer ", "");
    for (headers, challenge) in [
        (&[][..], "Bearer realm=\"palisade\""),
        (&[""], "Bearer realm=\"palisade\""),
        (&["Bearer"], "Bearer realm=\"palisade\""),
        (&["Bearer "], "Bearer realm=\"palisade\""),
        (&[bare.as_str()], "Bearer realm=\"palisade\""),
        (&["Basic YTpi"], "Bearer realm=\"palisade\""),
        (&[good.as_str(), good.as_str()], "Bearer realm=\"palisade\", error=\"invalid_request\""),
        (&[good.as_str(), "Basic YTpi"], "Bearer realm=\"palisade\", error=\"invalid_request\""),
        (&["Bearer x"], "Bearer realm=\"palisade\", error=\"invalid_token\""),
        (&[&format!("{good} x")], "Bearer realm=\"palisade\", error=\"invalid_token\""),
    ] {
        let refused = authenticated_subject(&verifier, &PROTECTED, headers).await.unwrap_err();
        // RFC 6750, section 3.1: a repeated credential is status 400.
        let reason = if headers.len() > 1 { &reasons::INVALID_PARAMETER } else { &reasons::UNAUTHENTICATED };
        assert_eq!(refused.reason(), reason, "{headers:?}");
        let (name, value) = &refused.headers()[0];
        assert_eq!((name, value.to_str().unwrap()), (&header::WWW_AUTHENTICATE, challenge), "{headers:?}");
    }
}

#[tokio::test]
async fn rejections_are_counted_by_reason() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (key, other) = (fresh_key(), fresh_key());
    let verifier = verifier_with(JwksSource::fixed(vec![key.trusted().unwrap()]));
    let minted = |token: &UserToken, at: i64| format!("Bearer {}", mint_user_token(token, &key, at).unwrap());
    let good = minted(&claims("idp"), NOW.unix_timestamp());
    for (headers, reason) in [
        (vec![], "missing"),
        (vec![good.clone(), good.clone()], "repeated"),
        (vec![minted(&claims("idp"), NOW.unix_timestamp() - 3_600)], "expired"),
        (vec![minted(&claims("elsewhere"), NOW.unix_timestamp())], "unknown_issuer"),
        (vec![format!("Bearer {}", token(&other))], "unknown_key"),
        (vec![format!("{}AAAA", &good[..good.len() - 4])], "signature"),
        (vec!["Bearer x".to_owned()], "invalid"),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        authenticated_subject(&verifier, &PROTECTED, &headers).await.unwrap_err();
        let shown = recorder.handle().render();
        assert!(shown.lines().any(|line| line.contains(&format!("reason=\"{reason}\"")) && line.ends_with(" 1")), "{reason}: {shown}");
    }
}

#[tokio::test]
async fn public_method_ignores_tokens() {
    let key = fresh_key();
    let verifier = verifier_with(JwksSource::fixed(vec![key.trusted().unwrap()]));
    for headers in [&[][..], &["Bearer x"], &[&format!("Bearer {}", token(&key))]] {
        assert_eq!(authenticated_subject(&verifier, &PUBLIC, headers).await.unwrap(), None);
    }
}

#[tokio::test]
async fn request_waits_for_jwks_load() {
    let key = fresh_key();
    let path = std::env::temp_dir().join(format!("palisade-keys-{}.json", uuid::Uuid::new_v4()));
    std::fs::write(&path, serde_json::to_string(&key.public_jwks()).unwrap()).unwrap();
    let keys = JwksSource::from_file(&path);
    assert!(keys.find_key(None, Algorithm::EdDSA).is_none(), "loaded before first use");
    let answer = authenticated_subject(&verifier_with(keys), &PROTECTED, &[&format!("Bearer {}", token(&key))]).await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(answer.unwrap().as_deref(), Some("alice"));
}
