//! Total cost of the layers: CPU time per request of an axum → tonic hop, bare and with both server
//! stacks and the client stack. The handlers are the same in all variants; tracing is disabled, or
//! 0 %, 10 % or 100 % of the traces are sampled.
//!
//! `cargo bench -p palisade-middleware --bench hop` prints the result; `-- --write` also writes it
//! to the README. All server processes run at the same time, and the load alternates between the
//! pairs in short rounds, so that other load on the machine affects all figures alike; the result
//! is their ratio. Then each pair runs alone in callgrind: instructions do not depend on the load
//! of the machine.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "developer tool")]
#![expect(clippy::disallowed_methods, reason = "the bare hop uses the plain libraries")]

#[path = "cases/process.rs"]
mod process;
#[path = "cases/readme_table.rs"]
mod readme_table;
#[path = "cases/traffic.rs"]
mod traffic;

use std::{env, fmt::Write, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use palisade_middleware::{
    auth::{
        CredentialsLayer, InternalTokens, Issuer, TokenPolicy, UserToken, Verifier, jwks::JwksSource, keys::SigningKey, mint_user_token,
    },
    client::{self, Config},
    clock::{Clock, SystemClock},
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    rate_limit,
    respond::Protocol,
    retry::MethodContracts,
    server::{self, accept},
    telemetry::{self, Telemetry, TrustBoundary},
};
use process::Process;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::{Bytes, StdError},
    service::Routes,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use traffic::load;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const REQUESTS_PER_ROUND: usize = 10_000;
const ROUNDS: usize = 5;
/// Requests of two instruction counts; both fill caches and connections.
const COUNTED_REQUESTS: [usize; 2] = [1_280, 3_840];

/// Variant: name, programs, share of sampled traces (`None` without a collector). The suffix
/// `+failed` enables tail sampling.
type Variant = (&'static str, &'static str, Option<&'static str>);

const VARIANTS: [Variant; 7] = [
    ("bare", "bare", None),
    ("all layers, tracing disabled", "full", None),
    ("all layers, 0 % of traces sampled", "full", Some("0.0")),
    ("all layers, 1 % of traces sampled", "full", Some("0.01")),
    ("all layers, 1 % of traces sampled, and failed ones", "full", Some("0.01+failed")),
    ("all layers, 10 % of traces sampled", "full", Some("0.1")),
    ("all layers, 100 % of traces sampled", "full", Some("1.0")),
];
static CALLS: [Method; 1] = [Method::grpc(CHECK, Access::Scope("bench:read"))];
static ROUTES: [Method; 1] = [Method::http("GET", "/check", Access::Scope("bench:read"))];

#[tokio::main]
async fn main() {
    let role = env::args().skip_while(|argument| argument != "--role").nth(1);
    let env_var = |name: &str| env::var(name).expect("set by the parent process");
    match role.as_deref() {
        Some("bare-backend") => {
            let (_, service) = tonic_health::server::health_reporter();
            let incoming = TcpIncoming::from(listener().await).with_nodelay(Some(true));
            Server::builder().add_service(service).serve_with_incoming(incoming).await.expect("the server runs");
        }
        Some("bare-gateway") => {
            let channel = Channel::from_shared(env_var("BACKEND")).expect("valid backend URL").connect_lazy();
            axum::serve(listener().await, router(channel)).await.expect("the server runs");
        }
        Some("full-backend") => {
            let (_, service) = tonic_health::server::health_reporter();
            let router = Routes::new(service).prepare().into_axum_router();
            serve(Protocol::Grpc, router, &CALLS, verifier("backend", "gateway", &env_var("GATEWAY_KEY"), true)).await;
        }
        Some("full-gateway") => {
            let tokens = InternalTokens::new("gateway", TokenPolicy::OnBehalfOfUser, key(env_var("GATEWAY_KEY")), Arc::new(SystemClock));
            let credentials = CredentialsLayer::new(Arc::new(tokens), "backend");
            let config = Config::at(env_var("BACKEND"));
            let client = client::connect("backend", &config, MethodContracts::from_iter([CHECK]), credentials);
            let router = router(client.expect("valid configuration"));
            serve(Protocol::Http, router, &ROUTES, verifier("gateway", "users", &env_var("USER_KEY"), false)).await;
        }
        _ => compare().await,
    }
}

/// Binds a free port and prints it for the parent process.
async fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    println!("http://{}", listener.local_addr().expect("the listener is bound"));
    listener
}

fn router<C>(client: C) -> Router
where
    C: tonic::client::GrpcService<Body, Future: Send, ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let client = HealthClient::new(client);
    Router::new().route(
        "/check",
        get(move || {
            let mut client = client.clone();
            async move {
                let answer = client.check(HealthCheckRequest::default()).await;
                answer.map(|answer| answer.into_inner().status.to_string()).map_err(|status| status.message().to_owned())
            }
        }),
    )
}

async fn serve(protocol: Protocol, router: Router, methods: &'static [Method], verifier: Arc<Verifier>) {
    let sampled = env::var("SAMPLED").ok();
    let share = sampled.as_deref().map(|sampled| sampled.strip_suffix("+failed").unwrap_or(sampled));
    let telemetry = telemetry::Config {
        otlp_endpoint: sampled.as_ref().map(|_| env::var("COLLECTOR").expect("set by the parent process").into()),
        sample_ratio: share.map_or(0.0, |share| share.parse().expect("valid sample ratio")),
        keep_failed_traces: sampled != share.map(str::to_owned),
        ..telemetry::Config::default()
    };
    let _telemetry = Telemetry::install(("hop", &["hop"]), TrustBoundary::Public, &telemetry, false).expect("telemetry is installed once");
    // Rate limits are measured but never reached: all calls come from one caller at one address.
    let mut config =
        server::Config { rate_limit: rate_limit::Config { per_second: 1_000_000, burst: 1_000_000 }, ..server::Config::default() };
    (config.address_limit.per_second, config.address_limit.burst) = (1_000_000, 1_000_000);
    let table = Arc::new(MethodTable::new(&[methods]).expect("valid method table"));
    let stack = server::stack(protocol, router, table, verifier, Faults::disabled(), &config);
    accept::serve(listener().await, protocol, stack, &config, CancellationToken::new()).await;
}

/// Verifier that trusts the tokens of `issuer` for `audience`.
fn verifier(audience: &str, issuer: &str, pem: &str, internal: bool) -> Arc<Verifier> {
    let key = key(pem.to_owned()).trusted().expect("the key has an id");
    let issuer = Issuer { internal, ..Issuer::of_users(issuer, audience, JwksSource::fixed(vec![key])) };
    Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock)).expect("one issuer"))
}

async fn compare() {
    let (user_key, gateway_key) = (pem(), pem());
    let key = key(user_key.clone());
    let token = UserToken {
        subject: "alice".to_owned(),
        scope: "bench:read".to_owned(),
        issuer: "users".to_owned(),
        audience: "gateway".to_owned(),
        lifetime: Duration::from_hours(1),
    };
    let token = mint_user_token(&token, &key, SystemClock.now().unix_timestamp()).expect("the token can be signed");
    let collector = collector().await;
    let keys = [("USER_KEY", user_key.as_str()), ("GATEWAY_KEY", &gateway_key), ("COLLECTOR", &collector)];
    let mut variants = VARIANTS.map(|hop| {
        let (gateway, backend) =
            pair(hop, &keys, |role, environment| Some(Process::start(role, environment))).expect("the processes start");
        (hop, gateway, backend, Vec::new())
    });
    for round in 0..=ROUNDS {
        for (_, gateway, backend, figures) in &mut variants {
            let before = [gateway.cpu(), backend.cpu()];
            load(&gateway.url, &token, REQUESTS_PER_ROUND).await;
            // The first round fills caches and connections.
            if round > 0 {
                figures.push([gateway.cpu().saturating_sub(before[0]), backend.cpu().saturating_sub(before[1])].map(per_request));
            }
        }
    }
    let cpu = variants.map(|(hop, _, _, figures)| (hop, [0, 1].map(|at| median(figures.iter().map(|figure| figure[at]).collect()))));
    let mut text = String::from(
        "| | µs CPU per request | gateway | backend | relative to bare | thousand instructions | relative to bare |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    let (mut bare_cpu, mut bare_counted) = (None, None);
    for (hop, [gateway, backend]) in cpu {
        let total = gateway + backend;
        let ratio = total / *bare_cpu.get_or_insert(total);
        let counted = match instructions(hop, &keys, &token).await {
            Some(counted) => format!("{:.0} | {:.2}", counted / 1e3, counted / *bare_counted.get_or_insert(counted)),
            None => "– | –".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {total:.1} | {gateway:.1} | {backend:.1} | {ratio:.2} | {counted} |", hop.0);
    }
    println!("{text}");
    if env::args().any(|argument| argument == "--write") {
        readme_table::write("hop", &text);
    }
}

/// Starts a gateway with its backend.
fn pair(
    (_, programs, sampled): Variant,
    keys: &[(&str, &str)],
    start: impl Fn(&str, &[(&str, &str)]) -> Option<Process>,
) -> Option<(Process, Process)> {
    let keys = [keys, &sampled.map(|share| ("SAMPLED", share)).into_iter().collect::<Vec<_>>()].concat();
    let backend = start(&format!("{programs}-backend"), &keys)?;
    let environment = [&keys[..], &[("BACKEND", backend.url.as_str())]].concat();
    Some((start(&format!("{programs}-gateway"), &environment)?, backend))
}

/// Instructions per request in both processes; `None` without valgrind. The difference of two
/// counts eliminates the instructions of the start.
async fn instructions(hop: Variant, keys: &[(&str, &str)], token: &str) -> Option<f64> {
    let mut counts = [0.0; 2];
    for (count, requests) in counts.iter_mut().zip(COUNTED_REQUESTS) {
        let (gateway, backend) = pair(hop, keys, Process::counted)?;
        load(&gateway.url, token, requests).await;
        *count = gateway.instructions() + backend.instructions();
    }
    let requests = u32::try_from(COUNTED_REQUESTS[1] - COUNTED_REQUESTS[0]).expect("at most a few thousand");
    Some((counts[1] - counts[0]) / f64::from(requests))
}

fn per_request(cpu: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
    let requests = REQUESTS_PER_ROUND as f64;
    cpu.as_secs_f64() * 1e6 / requests
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn pem() -> String {
    SigningKey::generate_pem().expect("random numbers are available").expose_secret().to_owned()
}

fn key(pem: String) -> SigningKey {
    SigningKey::from_pem(&pem.into()).expect("valid key")
}

/// Span collector that discards everything: responds to every call with an empty message.
async fn collector() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    let address: SocketAddr = listener.local_addr().expect("the listener is bound");
    let answer = || async {
        let mut response = http::Response::new(axum::body::Body::from(&b"\0\0\0\0\0"[..]));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("0"));
        response
    };
    let routes = Routes::from(Router::new().fallback(answer));
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpIncoming::from(listener)));
    format!("http://{address}")
}
