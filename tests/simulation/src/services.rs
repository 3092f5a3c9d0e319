//! The simulated services: the real ones, started as their programs start them.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use palisade_gateway::AUDIENCE;
use palisade_middleware::{
    auth::{
        Issuer, Keys, UserToken, Verifier,
        jwks::JwksSource,
        keys::{SigningKey, TrustedKey},
        mint_user_token,
    },
    client,
    process::Process,
    rate_limit, server,
    store_instrumentation::Database,
    telemetry::Telemetry,
};
use palisade_store::Reconnect;

use crate::{
    clock::{START, SimulatedClock},
    plan::Plan,
    store,
};

/// Port of the gateway.
pub const GATEWAY_PORT: u16 = 3_000;
const PRODUCTS_PORT: u16 = 5_000;
const ORDERS_PORT: u16 = 5_001;
const ADMIN_PORT: u16 = 9_464;
/// Issuer of user tokens.
const USERS: &str = "simulation";
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// Keys of the users' issuer and of the services: always the same, because the generation of a key
/// collects entropy, which takes longer than the start of the services.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    users: SigningKey,
    gateway: SigningKey,
    orders: SigningKey,
}

/// Beginning of an Ed25519 key in PKCS #8 (RFC 8410, section 7), before its 32 bytes.
const ED25519: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

impl SigningKeys {
    /// Creates the keys.
    pub fn new() -> anyhow::Result<Self> {
        let key = |byte: u8| {
            let base64 = STANDARD.encode([ED25519, &[byte; 32]].concat());
            anyhow::Ok(SigningKey::from_pem(&format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n").into())?)
        };
        Ok(Self { users: key(1)?, gateway: key(2)?, orders: key(3)? })
    }

    /// Mints a token of a user.
    pub fn token(&self, subject: &str, scope: &str) -> anyhow::Result<String> {
        let token = UserToken {
            subject: subject.to_owned(),
            scope: scope.to_owned(),
            issuer: USERS.to_owned(),
            audience: AUDIENCE.to_owned(),
            lifetime: TOKEN_LIFETIME,
        };
        // The clock of a gateway may be behind.
        Ok(mint_user_token(&token, &self.users, START.unix_timestamp() - 60)?)
    }
}

/// A host with a service.
#[derive(Clone)]
pub struct Host {
    /// Clock of the host.
    pub clock: SimulatedClock,
    /// Keys of all parties.
    pub keys: SigningKeys,
    /// Telemetry, which records nothing.
    pub telemetry: Telemetry,
    /// Plan of the run.
    pub plan: Arc<Plan>,
}

impl Host {
    /// Runs the gateway until the host crashes.
    pub async fn gateway(self) -> turmoil::Result {
        let mut config = palisade_gateway::Config {
            listen: any(GATEWAY_PORT),
            admin_listen: any(ADMIN_PORT),
            server: server_config(),
            ..palisade_gateway::Config::default()
        };
        config.upstreams.products = upstream("products", self.plan.products_replicas, PRODUCTS_PORT);
        config.upstreams.orders = upstream("orders", self.plan.orders_replicas, ORDERS_PORT);
        let verifier = self.verifier(AUDIENCE, vec![(USERS, &self.keys.users, false)])?;
        let signing = self.keys.gateway.clone();
        palisade_gateway::start(&config, Keys { verifier, signing }, &self.process())?;
        pending().await
    }

    /// Runs orders until the host crashes.
    pub async fn orders(self, store: Arc<store::orders::SimulatedStore>) -> turmoil::Result {
        let mut config = palisade_orders::Config {
            listen: any(ORDERS_PORT),
            admin_listen: any(ADMIN_PORT),
            server: server_config(),
            ..palisade_orders::Config::default()
        };
        config.upstreams.products = upstream("products", self.plan.products_replicas, PRODUCTS_PORT);
        config.saga.deadline_ms = self.plan.saga_deadline_ms;
        let verifier = self.verifier("orders", vec![("gateway", &self.keys.gateway, true)])?;
        let keys = Keys { verifier, signing: self.keys.orders.clone() };
        let opened = palisade_orders::start::Opened { store, database: database(), reconnect: Reconnect::default() };
        palisade_orders::start_with_store(config, opened, keys, &self.process())?;
        pending().await
    }

    /// Runs products until the host crashes.
    pub async fn products(self, store: Arc<store::products::SimulatedStore>) -> turmoil::Result {
        let config = palisade_products::Config {
            listen: any(PRODUCTS_PORT),
            admin_listen: any(ADMIN_PORT),
            server: server_config(),
            ..palisade_products::Config::default()
        };
        let verifier = self.verifier("products", vec![("gateway", &self.keys.gateway, true), ("orders", &self.keys.orders, true)])?;
        let connecting = palisade_products::store::ConnectingStore::<dyn palisade_products::store::Store>::default();
        // The cell is empty.
        let _ = connecting.set(store);
        let opened = palisade_products::start::Opened { store: connecting, database: database(), reconnect: Reconnect::default() };
        palisade_products::start_with_store(&config, opened, verifier, &self.process())?;
        pending().await
    }

    fn process(&self) -> Process {
        let mut process = Process::new(self.telemetry.clone());
        process.clock = Arc::new(self.clock.clone());
        process
    }

    fn verifier(&self, audience: &str, issuers: Vec<(&str, &SigningKey, bool)>) -> anyhow::Result<Arc<Verifier>> {
        let issuer = |(name, key, internal): (&str, &SigningKey, bool)| {
            let trusted: TrustedKey = key.trusted()?;
            anyhow::Ok(Issuer { internal, ..Issuer::of_users(name, audience, JwksSource::fixed(vec![trusted])) })
        };
        let issuers = issuers.into_iter().map(issuer).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Arc::new(Verifier::new(issuers, Arc::new(self.clock.clone()))?))
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

/// Rate limits read a clock of their own, which the simulation does not control.
fn server_config() -> server::Config {
    server::Config {
        rate_limit: rate_limit::Config { per_second: 0, burst: 0 },
        address_limit: rate_limit::AddressConfig { per_second: 0, public_per_second: 0, ..rate_limit::AddressConfig::default() },
        ..server::Config::default()
    }
}

fn upstream(service: &str, replicas: usize, port: u16) -> client::Config {
    let urls: Vec<_> = (1..=replicas).map(|replica| format!("http://{service}-{replica}:{port}")).collect();
    client::Config { url: urls.join(","), ..client::Config::default() }
}

fn database() -> Database {
    Database { system: "simulated", namespace: "simulation".into(), server: None }
}
