//! Test servers: one service as an axum router and as a tonic service, each behind the server stack
//! on its own port, with clients.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    routing::{get, post},
};
use palisade_middleware::{
    auth::{Issuer, Principal, Revocations, Rules, UserToken, Verifier, jwks::JwksSource, keys::SigningKey, mint_user_token},
    clock::{Clock, SystemClock},
    fault_injection::{Faults, Rule},
    method_table::{Access, Method, MethodTable},
    rejection::Rejection,
    respond::Protocol,
    server::{self, accept},
    task,
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    metadata::{MetadataKey, MetadataValue},
    service::Routes,
    transport::Endpoint,
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

const ACCESS: Access = Access::Scope("work:do");

/// `/open` and `Watch` are served but missing in the method tables.
static HTTP: [Method; 3] = [
    Method::http("GET", "/do/{what}", ACCESS),
    Method::http("GET", "/refuse/{slug}/{variant}", ACCESS),
    Method::http("POST", "/body", ACCESS),
];
static GRPC: [Method; 1] = [Method::grpc("/grpc.health.v1.Health/Check", ACCESS)];

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap());

/// Variations of the servers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) config: server::Config,
}

/// HTTP and gRPC server.
pub(crate) struct Servers {
    http: SocketAddr,
    grpc: SocketAddr,
    /// Notified when a handler starts to hang.
    pub(crate) busy: Arc<Notify>,
    faults: [Faults; 2],
    client: reqwest::Client,
}

#[derive(Debug)]
struct Mallory;

impl Revocations for Mallory {
    fn is_revoked(&self, principal: &Principal) -> bool {
        principal.subject == "mallory"
    }
}

fn verifier() -> Arc<Verifier> {
    let issuer = |name: &str, keys| Issuer::of_users(name, "errors", keys);
    let prefixed = |issuer: Issuer| issuer.with_rules(Rules { subject_prefix: "away:".to_owned(), ..Rules::default() });
    let issuers = vec![
        issuer("idp", JwksSource::fixed(vec![KEY.trusted().unwrap()])),
        prefixed(issuer("away", JwksSource::from_file("/nowhere/at/all"))),
    ];
    Arc::new(Verifier::new(issuers, Arc::new(SystemClock)).unwrap().with_revocations(Arc::new(Mallory)))
}

/// Token that differs from a valid one in these claims.
pub(crate) fn token(subject: &str, issuer: &str, scope: &str, age: Duration) -> String {
    let token = UserToken {
        subject: subject.to_owned(),
        scope: scope.to_owned(),
        issuer: issuer.to_owned(),
        audience: "errors".to_owned(),
        lifetime: Duration::from_mins(1),
    };
    let age = i64::try_from(age.as_secs()).unwrap();
    mint_user_token(&token, &KEY, SystemClock.now().unix_timestamp() - age).unwrap()
}

/// `authorization` header value of a user with all scopes.
pub(crate) fn bearer(subject: &str) -> String {
    format!("Bearer {}", token(subject, "idp", "work:do", Duration::ZERO))
}

/// Common handler of both services.
async fn handle(action: &str, busy: &Notify) -> Result<(), Rejection> {
    match action.split('/').collect::<Vec<_>>()[..] {
        ["refuse", slug, variant] => Err(super::rejection(slug, variant).expect("known reason and variant")),
        ["hang"] => {
            busy.notify_one();
            std::future::pending().await
        }
        ["panic"] => panic!("password=hunter2"),
        _ => Ok(()),
    }
}

fn router(busy: Arc<Notify>) -> Router {
    let act = async |State(busy): State<Arc<Notify>>, Path(what): Path<String>| handle(&what, &busy).await;
    let refuse = async |State(busy): State<Arc<Notify>>, Path((slug, variant)): Path<(String, String)>| {
        handle(&format!("refuse/{slug}/{variant}"), &busy).await
    };
    Router::new()
        .route("/do/{what}", get(act))
        .route("/refuse/{slug}/{variant}", get(refuse))
        .route("/body", post(async |Json(_): Json<serde_json::Value>| ()).layer(DefaultBodyLimit::max(100)))
        .route("/open", get(async || "not in the method table"))
        .with_state(busy)
}

struct Checks(Arc<Notify>);

#[tonic::async_trait]
impl Health for Checks {
    type WatchStream = tonic::codegen::BoxStream<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        handle(&request.get_ref().service, &self.0).await?;
        Ok(Response::new(HealthCheckResponse::default()))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(futures_util::stream::empty())))
    }
}

/// Serves `router` behind the server stack until the test ends.
pub(crate) async fn serve(protocol: Protocol, router: Router, methods: &'static [Method], config: server::Config) -> SocketAddr {
    serve_with_faults(protocol, router, methods, config).await.0
}

/// Like [`serve`], and returns the fault rules, which can be changed if `config` enables them.
async fn serve_with_faults(protocol: Protocol, router: Router, methods: &'static [Method], config: server::Config) -> (SocketAddr, Faults) {
    let table = Arc::new(MethodTable::new(&[methods]).unwrap());
    let faults = Faults::new(&config.fault_injection, protocol, &table);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stack = server::stack(protocol, router, table, verifier(), faults.clone(), &config);
    drop(task::spawn(async move { accept::serve(listener, protocol, stack, &config, CancellationToken::new()).await }));
    (address, faults)
}

pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

impl Servers {
    pub(crate) async fn start(Setup { config }: Setup) -> Self {
        let busy = Arc::<Notify>::default();
        let checks = Routes::new(HealthServer::new(Checks(busy.clone()))).prepare().into_axum_router();
        let (grpc, grpc_faults) = serve_with_faults(Protocol::Grpc, checks, &GRPC, config.clone()).await;
        let (http, http_faults) = serve_with_faults(Protocol::Http, router(busy.clone()), &HTTP, config).await;
        Self { http, grpc, busy, faults: [grpc_faults, http_faults], client: http_client() }
    }

    /// Injects this fault into all requests of both servers.
    pub(crate) fn inject(&self, rule: &Rule) {
        for faults in &self.faults {
            faults.replace(vec![rule.clone()]).unwrap();
        }
    }

    pub(crate) fn request(&self, verb: http::Method, path: &str, authorization: &[String]) -> reqwest::RequestBuilder {
        let request = self.client.request(verb, format!("http://{}{path}", self.http));
        authorization.iter().fold(request, |request, value| request.header("authorization", value))
    }

    pub(crate) async fn get(&self, path: &str, authorization: &[String], timeout_ms: Option<&str>) -> reqwest::Response {
        let request = self.request(http::Method::GET, path, authorization);
        let request = timeout_ms.into_iter().fold(request, |request, value| request.header("x-request-timeout", value));
        request.send().await.unwrap()
    }

    fn health(&self) -> HealthClient<tonic::transport::Channel> {
        HealthClient::new(Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect_lazy())
    }

    pub(crate) async fn check(&self, what: &str, authorization: &[String]) -> Result<Response<HealthCheckResponse>, Status> {
        let mut request = Request::new(HealthCheckRequest { service: what.to_owned() });
        for value in authorization {
            let key = MetadataKey::from_static("authorization");
            request.metadata_mut().append(key, MetadataValue::try_from(value).unwrap());
        }
        self.health().check(request).await
    }

    pub(crate) async fn watch(&self, authorization: &str) -> Status {
        let mut request = Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("authorization", MetadataValue::try_from(authorization).unwrap());
        self.health().watch(request).await.expect_err("the method is missing in the table")
    }

    /// Raw gRPC call with any HTTP method and `grpc-timeout`. A generated client sends only POST,
    /// and enforces the timeout itself.
    pub(crate) async fn raw_check(&self, verb: http::Method, authorization: &[String], timeout: Option<&str>) -> Option<Status> {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let request = client.request(verb, format!("http://{}{}", self.grpc, GRPC[0].path)).header("content-type", "application/grpc");
        let request = authorization.iter().fold(request, |request, value| request.header("authorization", value));
        let request = timeout.into_iter().fold(request, |request, value| request.header("grpc-timeout", value));
        let response = request.header("te", "trailers").body(&b"\0\0\0\0\0"[..]).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Status::from_header_map(response.headers())
    }
}
