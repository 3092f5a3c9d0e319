//! Invalid tokens, each for one reason, which the response must not reveal.

use palisade_tests::{
    Client, Response, Shop,
    jwt::{self, SECRET, claims, encode, now, sign, sign_text},
    shop_helpers::with_changes,
};
use serde_json::{Value, json};

const SCOPE: &str = "orders:read";

fn header() -> Value {
    json!({ "alg": "HS256", "typ": "JWT" })
}

fn good() -> String {
    jwt::token("alice", SCOPE)
}

async fn call(shop: &Shop, token: &str) -> Response {
    Client::new(shop.url(), Some(token.to_owned())).get("/orders").await
}

/// Asserts a 401 that is the same for every cause.
#[track_caller]
fn assert_rejected(answer: &Response, about: &str) {
    assert_eq!(answer.status, 401, "{about} was accepted");
    let problem = answer.problem(401, "unauthenticated");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{about}: {challenge}");
    for word in ["signature", "audience", "issuer", "kid", "alg", "nbf"] {
        assert!(!problem["detail"].as_str().unwrap().contains(word), "{about}: {problem}");
    }
}

#[tokio::test]
async fn invalid_tokens_are_rejected_and_valid_accepted() {
    let shop = Shop::separate(None, None);
    accepts_good_tokens(&shop).await;
    rejects_bad_headers(&shop).await;
    rejects_bad_claims(&shop).await;
    rejects_malformed_tokens(&shop).await;
    distinguishes_expired_tokens(&shop).await;
    parses_header_as_in_rfc_6750(&shop).await;
    enforces_scopes(&shop).await;
}

async fn accepts_good_tokens(shop: &Shop) {
    let good_headers = [
        header(),
        json!({ "alg": "HS256", "typ": "at+jwt" }),
        json!({ "alg": "HS256", "typ": "application/at+jwt" }),
        json!({ "alg": "HS256", "typ": "JWT", "x-note": "ignored" }),
    ];
    for good_header in good_headers {
        call(shop, &sign(&good_header, &claims("alice", SCOPE), SECRET.as_bytes())).await.ok(200);
    }
    for change in
        [json!({ "aud": ["other", "palisade"] }), json!({ "nbf": now() - 10 }), json!({ "nbf": now() + 10 }), json!({ "exp": now() - 10 })]
    {
        call(shop, &sign(&header(), &with_changes(claims("alice", SCOPE), &change), SECRET.as_bytes())).await.ok(200);
    }
}

async fn rejects_bad_headers(shop: &Shop) {
    let headers = [
        json!({}),
        json!({ "alg": "none" }),
        json!({ "alg": "None", "typ": "JWT" }),
        json!({ "alg": "HS512", "typ": "JWT" }),
        json!({ "alg": "RS256", "typ": "JWT" }),
        json!({ "alg": "EdDSA", "typ": "JWT" }),
        json!({ "alg": "HS256", "typ": "int+jwt" }),
        json!({ "alg": "HS256", "typ": "JWE" }),
        json!({ "alg": ["HS256"], "typ": "JWT" }),
        json!({ "alg": "HS256", "typ": "JWT", "crit": ["x"], "x": "1" }),
        json!({ "alg": "HS256", "typ": "JWT", "crit": [] }),
        json!({ "alg": "HS256", "typ": "JWT", "b64": false, "crit": ["b64"] }),
        json!({ "alg": "HS256", "typ": "JWT", "jku": "http://127.0.0.1:1/keys" }),
        json!({ "alg": "HS256", "typ": "JWT", "x5u": "http://127.0.0.1:1/cert" }),
        json!({ "alg": "HS256", "typ": "JWT", "zip": "DEF" }),
        json!({ "alg": "HS256", "typ": "JWT", "kid": ["x"] }),
    ];
    for header in headers {
        assert_rejected(&call(shop, &sign(&header, &claims("alice", SCOPE), SECRET.as_bytes())).await, &header.to_string());
    }
    for header in ["", "null", "[]", "{\"alg\":\"HS256\",\"alg\":\"none\",\"typ\":\"JWT\"}", "[\"HS256\",\"JWT\",null]", &"[".repeat(1_000)]
    {
        assert_rejected(&call(shop, &sign_text(header, &claims("alice", SCOPE).to_string(), SECRET.as_bytes())).await, header);
    }
    // Key confusion: the public key of an asymmetric issuer must not work as an HMAC secret.
    let public: Value = serde_json::from_slice(&std::fs::read(shop.directory().join("gateway.jwks")).unwrap()).unwrap();
    for text in [public["keys"][0]["x"].as_str().unwrap().to_owned(), public.to_string(), String::new()] {
        assert_rejected(&call(shop, &sign(&header(), &claims("alice", SCOPE), text.as_bytes())).await, "another secret");
    }
}

async fn rejects_bad_claims(shop: &Shop) {
    let changes = [
        json!({ "exp": null }),
        json!({ "exp": "never" }),
        json!({ "exp": true }),
        json!({ "exp": -1 }),
        json!({ "nbf": now() + 120 }),
        json!({ "nbf": "soon" }),
        json!({ "iat": now() + 120 }),
        json!({ "aud": null }),
        json!({ "aud": "orders" }),
        json!({ "aud": "gateway" }),
        json!({ "aud": ["products", "orders"] }),
        json!({ "aud": [] }),
        json!({ "iss": null }),
        json!({ "iss": "https://elsewhere.example" }),
        json!({ "iss": "gateway" }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
        json!({ "sub": { "$ne": 1 } }),
        json!({ "sub": "s".repeat(1_000) }),
        json!({ "sub": "line\nbreak" }),
    ];
    for change in changes {
        assert_rejected(
            &call(shop, &sign(&header(), &with_changes(claims("alice", SCOPE), &change), SECRET.as_bytes())).await,
            &change.to_string(),
        );
    }
    let good = claims("alice", SCOPE).to_string();
    let twice = good.replacen('{', "{\"sub\":\"bob\",", 1);
    // serde accepts a list for a struct (serde-rs/serde#1587).
    let listed = json!([jwt::ISSUER, "alice", "palisade", now() + 600, now(), now(), "id", SCOPE, [], null]).to_string();
    for payload in [&listed, "", "null", "[]", "\"text\"", "{", &twice, &format!("[{good}]")] {
        assert_rejected(&call(shop, &sign_text(&header().to_string(), payload, SECRET.as_bytes())).await, payload);
    }
}

async fn rejects_malformed_tokens(shop: &Shop) {
    let good = good();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    // The last character of a 32-byte signature has two unused bits, so the same bytes have another
    // encoding.
    let reencoded = {
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = alphabet.find(good.chars().last().unwrap()).unwrap();
        format!("{}{}", &good[..good.len() - 1], &alphabet[last + 1..last + 2])
    };
    let flipped = format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let unsigned = format!("{}.{}.", encode("{\"alg\":\"none\"}"), encode(claims("alice", SCOPE).to_string()));
    let tokens = [
        "x".to_owned(),
        "x.y".into(),
        "x.y.z".into(),
        "..".into(),
        format!("{good}.x"),
        format!("{good}.x.y"),
        format!("{signed}."),
        format!("{signed}.{}", &signature[..10]),
        format!("{good}="),
        reencoded,
        flipped,
        unsigned,
        format!("{good}, {good}"),
        jwt::sign(&header(), &with_changes(claims("alice", SCOPE), &json!({ "padding": "p".repeat(8 * 1024) })), SECRET.as_bytes()),
    ];
    for token in tokens {
        assert_rejected(&call(shop, &token).await, &token[..token.len().min(200)]);
    }
}

async fn distinguishes_expired_tokens(shop: &Shop) {
    let expired = sign(&header(), &with_changes(claims("alice", SCOPE), &json!({ "exp": now() - 60 })), SECRET.as_bytes());
    let answer = call(shop, &expired).await;
    answer.problem(401, "token_expired");
    assert!(answer.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    let forged = sign(&header(), &with_changes(claims("alice", SCOPE), &json!({ "exp": now() - 60 })), b"some other secret of many bytes!");
    assert_rejected(&call(shop, &forged).await, "expired and forged");
}

async fn parses_header_as_in_rfc_6750(shop: &Shop) {
    let nobody = Client::new(shop.url(), None);
    let good = good();
    for scheme in ["bearer", "BEARER", "Bearer"] {
        nobody.get("/orders").header("authorization", format!("{scheme} {good}")).await.ok(200);
    }
    for value in ["", "Bearer", "Bearer ", &good, &format!("Basic {good}"), &format!("Token {good}")] {
        nobody.get("/orders").header("authorization", value).await.problem(401, "unauthenticated");
    }
    let twice = nobody.get("/orders").header("authorization", format!("Bearer {good}")).header("authorization", format!("Bearer {good}"));
    twice.await.problem(400, "invalid_parameter");
    let in_the_query = nobody.get(format!("/orders?access_token={good}")).await;
    in_the_query.problem(401, "unauthenticated");
}

async fn enforces_scopes(shop: &Shop) {
    let long = "x ".repeat(1_500);
    let scopes = [json!(null), json!(""), json!("orders:read2"), json!("orders:reаd"), json!("admin"), json!(long), json!("ORDERS:READ")];
    for scope in scopes {
        let token = sign(&header(), &with_changes(claims("alice", ""), &json!({ "scope": scope })), SECRET.as_bytes());
        call(shop, &token).await.problem(403, "insufficient_scope");
    }
    // A scope reserved for services has no effect in a user token.
    let token = jwt::token("alice", "products:reserve");
    Client::new(shop.url(), Some(token)).get("/products").await.problem(403, "insufficient_scope");
}
