//! Rejections of each server layer, in the order of the stack.

use std::time::Duration;

use futures_util::future::select_all;
use http::{Method, StatusCode};
use palisade_middleware::{
    fault_injection::{Kind, Rule},
    rate_limit,
    rejection::{Reason, reasons},
    server,
};

use super::{
    expected::{ExpectedRejection, ExpectedRetry},
    servers::{Servers, Setup, bearer, token},
};

const SECOND: Duration = Duration::from_secs(1);

fn setup(change: impl FnOnce(&mut server::Config)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.config);
    setup
}

/// Asserts the same rejection on the HTTP and the gRPC port.
async fn assert_rejected(case: &str, expected: &ExpectedRejection, servers: &Servers, what: &str, authorization: &[String]) {
    expected.assert_http(case, servers.get(&format!("/do/{what}"), authorization, None).await).await;
    expected.assert_grpc(case, &servers.check(what, authorization).await.unwrap_err());
}

#[tokio::test]
async fn deadline() {
    let servers = Servers::start(setup(|config| config.default_deadline_ms = 50)).await;
    let bearer = [bearer("alice")];
    let expected = ExpectedRejection::of(&reasons::DEADLINE_EXCEEDED, ExpectedRetry::Silent);
    assert_rejected("expired during the work", &expected, &servers, "hang", &bearer).await;
    expected.assert_grpc("expired on arrival", &servers.raw_check(Method::POST, &bearer, Some("0m")).await.unwrap());
    let expected = ExpectedRejection::of(&reasons::INVALID_PARAMETER, ExpectedRetry::Silent);
    for invalid in ["soon", "0", "-1"] {
        expected.assert_http(invalid, servers.get("/do/it", &bearer, Some(invalid)).await).await;
    }
}

/// Sends `others` concurrent requests while one is in flight, to servers with one permit: the first
/// response is a rejection.
async fn assert_overloaded(case: &str, servers: &Servers, others: usize) {
    let bearer = [bearer("alice")];
    let expected = ExpectedRejection::of(&reasons::OVERLOADED, ExpectedRetry::AtMost(2 * SECOND));
    tokio::select! {
        _ = servers.get("/do/hang", &bearer, None) => unreachable!("the request hangs"),
        () = async {
            servers.busy.notified().await;
            let (answer, ..) = select_all((0..others).map(|_| Box::pin(servers.get("/do/it", &bearer, None)))).await;
            expected.assert_http(case, answer).await;
        } => {}
    }
    tokio::select! {
        _ = servers.check("hang", &bearer) => unreachable!("the request hangs"),
        () = async {
            servers.busy.notified().await;
            let (answer, ..) = select_all((0..others).map(|_| Box::pin(servers.check("it", &bearer)))).await;
            expected.assert_grpc(case, &answer.unwrap_err());
        } => {}
    }
}

#[tokio::test]
async fn load_shed() {
    assert_overloaded("concurrency limit reached", &Servers::start(setup(|config| config.max_in_flight = 1)).await, 1).await;
}

#[tokio::test]
async fn adaptive_limit() {
    let single_permit = |config: &mut server::Config| {
        let limit = &mut config.adaptive_limit;
        (limit.initial_limit, limit.min_limit, limit.max_limit) = (1, 1, 1);
    };
    assert_overloaded("queue full", &Servers::start(setup(single_permit)).await, 100).await;
}

#[tokio::test]
async fn http_guard() {
    static EXPECTATION_FAILED: Reason = Reason::new(
        reasons::INVALID_PARAMETER.slug,
        StatusCode::EXPECTATION_FAILED,
        reasons::INVALID_PARAMETER.grpc,
        reasons::INVALID_PARAMETER.title,
    );
    let servers = Servers::start(Setup::default()).await;
    let closed = &[("connection", "close")];
    for (about, header, reason) in [
        ("two hosts", ("host", "b.example"), &reasons::INVALID_PARAMETER),
        ("unsupported transfer coding", ("transfer-encoding", "gzip"), &reasons::INVALID_PARAMETER),
        ("unknown expectation", ("expect", "a wonder"), &EXPECTATION_FAILED),
    ] {
        let request = servers.request(Method::POST, "/body", &[bearer("alice")]).header("host", "a.example");
        let answer = request.header(header.0, header.1).body("\"\"").send().await.unwrap();
        ExpectedRejection::of(reason, ExpectedRetry::Silent).with_headers(closed).assert_http(about, answer).await;
    }
}

#[tokio::test]
async fn fault() {
    let servers = Servers::start(setup(|config| config.fault_injection.enabled = true)).await;
    let bearer = [bearer("alice")];
    let is_injectable = |reason: &Reason| reason.http.is_server_error() || *reason == reasons::RATE_LIMITED;
    for reason in reasons::ALL.iter().filter(|reason| is_injectable(reason)) {
        let kind = Kind::Error(reason.slug.to_owned());
        servers.inject(&Rule { name: "injected".to_owned(), method: "*".to_owned(), rate: 1.0, kind });
        let has_retry_after = [&reasons::OVERLOADED, &reasons::RATE_LIMITED].contains(reason);
        let expected = ExpectedRejection::of(reason, if has_retry_after { ExpectedRetry::Exactly(SECOND) } else { ExpectedRetry::Silent });
        assert_rejected(reason.slug, &expected, &servers, "it", &bearer).await;
    }
}

#[tokio::test]
async fn address_limit() {
    let limit = rate_limit::AddressConfig { per_second: 1, burst: 1, ..rate_limit::AddressConfig::default() };
    let servers = Servers::start(setup(|config| config.address_limit = limit)).await;
    let bearer = [bearer("alice")];
    servers.get("/do/it", &bearer, None).await.error_for_status().unwrap();
    let expected = ExpectedRejection::of(&reasons::RATE_LIMITED, ExpectedRetry::AtMost(SECOND));
    expected.assert_http("limit exceeded", servers.get("/do/it", &bearer, None).await).await;
}

#[tokio::test]
async fn authenticate() {
    let servers = Servers::start(Setup::default()).await;
    let valid = bearer("alice");
    let token_of = |issuer, age| format!("Bearer {}", token("alice", issuer, "work:do", age));
    let invalid_token = &[("www-authenticate", "Bearer realm=\"palisade\", error=\"invalid_token\"")];
    let invalid_request = &[("www-authenticate", "Bearer realm=\"palisade\", error=\"invalid_request\"")];
    let no_error = &[("www-authenticate", "Bearer realm=\"palisade\"")];
    let unauthenticated = ExpectedRejection::of(&reasons::UNAUTHENTICATED, ExpectedRetry::Silent);
    let cases = [
        ("no token", vec![], unauthenticated.clone().with_headers(no_error)),
        ("not a bearer", vec!["Basic YTpi".to_owned()], unauthenticated.clone().with_headers(no_error)),
        (
            "two headers",
            vec![valid.clone(), valid.clone()],
            ExpectedRejection::of(&reasons::INVALID_PARAMETER, ExpectedRetry::Silent).with_headers(invalid_request),
        ),
        ("malformed token", vec!["Bearer x".to_owned()], unauthenticated.clone().with_headers(invalid_token)),
        ("invalid signature", vec![format!("{valid}AAAA")], unauthenticated.clone().with_headers(invalid_token)),
        ("token above 8 KiB", vec![format!("Bearer {}", "x".repeat(9 * 1024))], unauthenticated.clone().with_headers(invalid_token)),
        ("unknown issuer", vec![token_of("stranger", Duration::ZERO)], unauthenticated.clone().with_headers(invalid_token)),
        ("revoked", vec![bearer("mallory")], unauthenticated.with_headers(invalid_token)),
        (
            "expired",
            vec![token_of("idp", 1000 * SECOND)],
            ExpectedRejection::of(&reasons::TOKEN_EXPIRED, ExpectedRetry::Silent).with_headers(invalid_token),
        ),
        (
            "keys unavailable",
            vec![token_of("away", Duration::ZERO)],
            ExpectedRejection::of(&reasons::UPSTREAM_UNAVAILABLE, ExpectedRetry::Exactly(SECOND)),
        ),
    ];
    for (about, authorization, expected) in cases {
        assert_rejected(about, &expected, &servers, "it", &authorization).await;
    }
}

#[tokio::test]
async fn authorize() {
    let servers = Servers::start(Setup::default()).await;
    let missing_scope = [format!("Bearer {}", token("alice", "idp", "work:watch", Duration::ZERO))];
    let expected = ExpectedRejection::of(&reasons::INSUFFICIENT_SCOPE, ExpectedRetry::Silent)
        .with_headers(&[("www-authenticate", "Bearer realm=\"palisade\", error=\"insufficient_scope\", scope=\"work:do\"")]);
    assert_rejected("missing scope", &expected, &servers, "it", &missing_scope).await;

    let bearer = [bearer("alice")];
    let expected = ExpectedRejection::of(&reasons::NOT_FOUND, ExpectedRetry::Silent);
    expected.assert_http("unknown path", servers.get("/nothing", &bearer, None).await).await;
    expected.assert_http("missing in the method table", servers.get("/open", &bearer, None).await).await;
    ExpectedRejection::of(&reasons::UNIMPLEMENTED, ExpectedRetry::Silent)
        .assert_grpc("missing in the method table", &servers.watch(&bearer[0]).await);
    let expected = ExpectedRejection::of(&reasons::METHOD_NOT_ALLOWED, ExpectedRetry::Silent).with_headers(&[("allow", "GET,HEAD")]);
    expected.assert_http("method not allowed", servers.request(Method::DELETE, "/do/it", &bearer).send().await.unwrap()).await;
    // tonic accepts every HTTP method, so that the table entry applies to all.
    let expected = ExpectedRejection::of(&reasons::UNAUTHENTICATED, ExpectedRetry::Silent);
    expected.assert_grpc("method not allowed", &servers.raw_check(Method::GET, &[], None).await.unwrap());
}

#[tokio::test]
async fn rate_limit() {
    let limit = rate_limit::Config { per_second: 1, burst: 1 };
    let servers = Servers::start(setup(|config| config.rate_limit = limit)).await;
    let bearer = [bearer("alice")];
    servers.get("/do/it", &bearer, None).await.error_for_status().unwrap();
    servers.check("it", &bearer).await.unwrap();
    let expected = ExpectedRejection::of(&reasons::RATE_LIMITED, ExpectedRetry::AtMost(SECOND));
    assert_rejected(
        "limit exceeded",
        &expected.with_headers(&[("ratelimit-policy", "\"default\";q=1;w=1"), ("ratelimit", "\"default\";r=0;t=1")]),
        &servers,
        "it",
        &bearer,
    )
    .await;
}

#[tokio::test]
async fn catch_panic() {
    let servers = Servers::start(Setup::default()).await;
    assert_rejected("a panic", &ExpectedRejection::of(&reasons::INTERNAL, ExpectedRetry::Silent), &servers, "panic", &[bearer("alice")])
        .await;
}

/// Errors that the framework or the handler wrote pass as they are.
#[tokio::test]
async fn respond() {
    let servers = Servers::start(Setup::default()).await;
    let bearer = [bearer("alice")];
    let post = || servers.request(Method::POST, "/body", &bearer);
    let json = |body: String| post().header("content-type", "application/json").body(body);
    for (about, request, status) in [
        ("too large", json(format!("\"{}\"", "x".repeat(100))), 413),
        ("unsupported media type", post().body("{}"), 415),
        ("not JSON", json("{".to_owned()), 400),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{about}");
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8", "{about}");
    }
}
