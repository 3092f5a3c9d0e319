//! What each layer of the server stack refuses, in the order of the stack.

use std::time::Duration;

use futures_util::future::select_all;
use http::{Method, StatusCode};
use palisade_middleware::{
    fault::{Kind, Rule},
    rate_limit,
    rejection::{Reason, reasons},
    server,
};

use super::{
    servers::{Servers, Setup, bearer, token},
    told::{Told, Wait},
};

const SECOND: Duration = Duration::from_secs(1);

fn setup(change: impl FnOnce(&mut server::Config)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.config);
    setup
}

/// The same on both ports.
async fn both(about: &str, told: &Told, servers: &Servers, what: &str, authorization: &[String]) {
    told.to_http(about, servers.get(&format!("/do/{what}"), authorization, None).await).await;
    told.to_grpc(about, &servers.check(what, authorization).await.unwrap_err());
}

#[tokio::test]
async fn deadline() {
    let servers = Servers::start(setup(|config| config.default_deadline_ms = 50)).await;
    let bearer = [bearer("alice")];
    let told = Told::of(&reasons::DEADLINE_EXCEEDED, Wait::Silent);
    both("passed at work", &told, &servers, "hang", &bearer).await;
    told.to_http("passed on arrival", servers.get("/do/it", &bearer, Some("0")).await).await;
    told.to_grpc("passed on arrival", &servers.raw_check(Method::POST, &bearer, Some("0m")).await.unwrap());
    let told = Told::of(&reasons::INVALID_PARAMETER, Wait::Silent);
    told.to_http("not a number", servers.get("/do/it", &bearer, Some("soon")).await).await;
}

/// With a request at work in servers that take one, `others` come at once: the first to be answered is refused.
async fn no_room(about: &str, servers: &Servers, others: usize) {
    let bearer = [bearer("alice")];
    let told = Told::of(&reasons::OVERLOADED, Wait::AtMost(2 * SECOND));
    tokio::select! {
        _ = servers.get("/do/hang", &bearer, None) => unreachable!("it hangs"),
        () = async {
            servers.busy.notified().await;
            let (answer, ..) = select_all((0..others).map(|_| Box::pin(servers.get("/do/it", &bearer, None)))).await;
            told.to_http(about, answer).await;
        } => {}
    }
    tokio::select! {
        _ = servers.check("hang", &bearer) => unreachable!("it hangs"),
        () = async {
            servers.busy.notified().await;
            let (answer, ..) = select_all((0..others).map(|_| Box::pin(servers.check("it", &bearer)))).await;
            told.to_grpc(about, &answer.unwrap_err());
        } => {}
    }
}

#[tokio::test]
async fn load_shed() {
    no_room("no room", &Servers::start(setup(|config| config.max_in_flight = 1)).await, 1).await;
}

#[tokio::test]
async fn adaptive_limit() {
    let one = |config: &mut server::Config| {
        let limit = &mut config.adaptive_limit;
        (limit.initial_limit, limit.min_limit, limit.max_limit) = (1, 1, 1);
    };
    no_room("no room, not even to wait", &Servers::start(setup(one)).await, 100).await;
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
    let closes = &[("connection", "close")];
    for (about, header, reason) in [
        ("two hosts", ("host", "b.example"), &reasons::INVALID_PARAMETER),
        ("another coding", ("transfer-encoding", "gzip"), &reasons::INVALID_PARAMETER),
        ("a wonder", ("expect", "a wonder"), &EXPECTATION_FAILED),
    ] {
        let request = servers.request(Method::POST, "/body", &[bearer("alice")]).header("host", "a.example");
        let answer = request.header(header.0, header.1).body("\"\"").send().await.unwrap();
        Told::of(reason, Wait::Silent).with_headers(closes).to_http(about, answer).await;
    }
}

#[tokio::test]
async fn fault() {
    let servers = Servers::start(setup(|config| config.faults.enabled = true)).await;
    let bearer = [bearer("alice")];
    let hit = |reason: &Reason| reason.http.is_server_error() || *reason == reasons::RATE_LIMITED;
    for reason in reasons::ALL.iter().filter(|reason| hit(reason)) {
        let kind = Kind::Error(reason.slug.to_owned());
        servers.inject(&Rule { name: "on purpose".to_owned(), method: "*".to_owned(), rate: 1.0, kind });
        let waits = [&reasons::OVERLOADED, &reasons::RATE_LIMITED].contains(reason);
        let told = Told::of(reason, if waits { Wait::Exactly(SECOND) } else { Wait::Silent });
        both(reason.slug, &told, &servers, "it", &bearer).await;
    }
}

#[tokio::test]
async fn address_limit() {
    let limit = rate_limit::AddressConfig { per_second: 1, burst: 1, ..rate_limit::AddressConfig::default() };
    let servers = Servers::start(setup(|config| config.address_limit = limit)).await;
    let bearer = [bearer("alice")];
    servers.get("/do/it", &bearer, None).await.error_for_status().unwrap();
    let told = Told::of(&reasons::RATE_LIMITED, Wait::AtMost(SECOND));
    told.to_http("too many", servers.get("/do/it", &bearer, None).await).await;
}

#[tokio::test]
async fn authenticate() {
    let servers = Servers::start(Setup::default()).await;
    let good = bearer("alice");
    let other = |issuer, age| format!("Bearer {}", token("alice", issuer, "work:do", age));
    let bad = &[("www-authenticate", "Bearer realm=\"palisade\", error=\"invalid_token\"")];
    let twice = &[("www-authenticate", "Bearer realm=\"palisade\", error=\"invalid_request\"")];
    let none = &[("www-authenticate", "Bearer realm=\"palisade\"")];
    let unauthenticated = Told::of(&reasons::UNAUTHENTICATED, Wait::Silent);
    let cases = [
        ("no token", vec![], unauthenticated.clone().with_headers(none)),
        ("not a bearer", vec!["Basic YTpi".to_owned()], unauthenticated.clone().with_headers(none)),
        ("two headers", vec![good.clone(), good.clone()], unauthenticated.clone().with_headers(twice)),
        ("no token at all", vec!["Bearer x".to_owned()], unauthenticated.clone().with_headers(bad)),
        ("another signature", vec![format!("{good}AAAA")], unauthenticated.clone().with_headers(bad)),
        ("more than 8 KiB", vec![format!("Bearer {}", "x".repeat(9 * 1024))], unauthenticated.clone().with_headers(bad)),
        ("of nobody we know", vec![other("stranger", Duration::ZERO)], unauthenticated.clone().with_headers(bad)),
        ("revoked", vec![bearer("mallory")], unauthenticated.with_headers(bad)),
        ("expired", vec![other("idp", 1000 * SECOND)], Told::of(&reasons::TOKEN_EXPIRED, Wait::Silent).with_headers(bad)),
        ("keys that were never read", vec![other("away", Duration::ZERO)], Told::of(&reasons::UPSTREAM_UNAVAILABLE, Wait::Exactly(SECOND))),
    ];
    for (about, authorization, told) in cases {
        both(about, &told, &servers, "it", &authorization).await;
    }
}

#[tokio::test]
async fn authorize() {
    let servers = Servers::start(Setup::default()).await;
    let lacking = [format!("Bearer {}", token("alice", "idp", "work:watch", Duration::ZERO))];
    let told = Told::of(&reasons::INSUFFICIENT_SCOPE, Wait::Silent)
        .with_headers(&[("www-authenticate", "Bearer realm=\"palisade\", error=\"insufficient_scope\", scope=\"work:do\"")]);
    both("another scope", &told, &servers, "it", &lacking).await;

    let bearer = [bearer("alice")];
    let told = Told::of(&reasons::NOT_FOUND, Wait::Silent);
    told.to_http("no such path", servers.get("/nothing", &bearer, None).await).await;
    told.to_http("served and not listed", servers.get("/open", &bearer, None).await).await;
    Told::of(&reasons::UNIMPLEMENTED, Wait::Silent).to_grpc("served and not listed", &servers.watch(&bearer[0]).await);
    let told = Told::of(&reasons::METHOD_NOT_ALLOWED, Wait::Silent).with_headers(&[("allow", "GET,HEAD")]);
    told.to_http("another verb", servers.request(Method::DELETE, "/do/it", &bearer).send().await.unwrap()).await;
    // tonic runs a handler for every verb: the entry holds for every one.
    let told = Told::of(&reasons::UNAUTHENTICATED, Wait::Silent);
    told.to_grpc("another verb", &servers.raw_check(Method::GET, &[], None).await.unwrap());
}

#[tokio::test]
async fn rate_limit() {
    let limit = rate_limit::Config { per_second: 1, burst: 1 };
    let servers = Servers::start(setup(|config| config.rate_limit = limit)).await;
    let bearer = [bearer("alice")];
    servers.get("/do/it", &bearer, None).await.error_for_status().unwrap();
    servers.check("it", &bearer).await.unwrap();
    let told = Told::of(&reasons::RATE_LIMITED, Wait::AtMost(SECOND));
    both(
        "too many",
        &told.with_headers(&[("ratelimit-policy", "\"default\";q=1;w=1"), ("ratelimit", "\"default\";r=0;t=1")]),
        &servers,
        "it",
        &bearer,
    )
    .await;
}

#[tokio::test]
async fn catch_panic() {
    let servers = Servers::start(Setup::default()).await;
    both("a panic", &Told::of(&reasons::INTERNAL, Wait::Silent), &servers, "panic", &[bearer("alice")]).await;
}

/// What axum answers by itself becomes a problem too.
#[tokio::test]
async fn respond() {
    let servers = Servers::start(Setup::default()).await;
    let bearer = [bearer("alice")];
    let post = || servers.request(Method::POST, "/body", &bearer);
    let json = |body: String| post().header("content-type", "application/json").body(body);
    for (about, request, reason) in [
        ("too large", json(format!("\"{}\"", "x".repeat(100))), &reasons::BODY_TOO_LARGE),
        ("not JSON by its type", post().body("{}"), &reasons::UNSUPPORTED_MEDIA_TYPE),
        ("not JSON", json("{".to_owned()), &reasons::INVALID_PARAMETER),
    ] {
        Told::of(reason, Wait::Silent).to_http(about, request.send().await.unwrap()).await;
    }
}
