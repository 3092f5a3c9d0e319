//! All-in-one startup: products, orders and gateway in this process.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};

use palisade_middleware::{
    auth::{
        Issuer, Keys, UserToken, Verifier,
        jwks::JwksSource,
        keys::{SigningKey, TrustedKey},
        mint_user_token,
    },
    clock::Clock,
    metrics::with_service,
    process::Process,
    setting::Invalid,
};

use crate::{
    config::Config,
    console,
    data_dir::{self, DEV_ISSUER},
};

/// Lifetime of the token printed at startup.
const DEMO_TOKEN_LIFETIME: Duration = Duration::from_hours(24);
/// Maximum wait for readiness before the banner is printed. If a service is not ready, `/readyz`
/// shows the reason.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Services with separate metrics.
pub(crate) const SERVICES: [&str; 3] = ["gateway", "products", "orders"];
const DEMO_SCOPES: &str = "products:read products:write orders:read orders:write orders:admin";

/// Starts products, orders and the gateway, in this order: each needs the address of the previous
/// one.
pub(crate) async fn start(mut config: Config, process: Process) -> anyhow::Result<()> {
    let development = data_dir::development_key(&config.data_dir)?;
    let trusted = config.uses_development_key().then(|| development.trusted()).transpose()?;
    let (gateway_key, orders_key) = (generate_key()?, generate_key()?);
    let clock = &process.clock;

    config.set_default_stores();
    config.set_fault_injection();
    let console = console::routes(&process, &SERVICES);
    let has_console = console.is_some();
    process.admin_ports.extend("gateway", console.unwrap_or_default());

    let gateway_events = &mut config.gateway.events;
    if gateway_events.nats_url.is_none() && gateway_events.nats_url_file.is_none() {
        // Use the broker that products publishes to.
        gateway_events.clone_from(&config.products.events);
    }

    let callers = [("gateway", gateway_key.trusted()?), ("orders", orders_key.trusted()?)];
    // The verifier has metrics too, so it is created in the scope of its service.
    let products = with_service("products", async {
        let verifier = verifier("products", &callers, trusted.as_ref(), &config.products.auth, clock)?;
        palisade_products::start(&config.products, verifier, &process)
    });
    let products = in_service("products", products.await)?;

    config.orders.upstreams.products.url = http_url(products);
    let orders = with_service("orders", async {
        let verifier = verifier("orders", &callers[..1], trusted.as_ref(), &config.orders.auth, clock)?;
        palisade_orders::start(config.orders, Keys { verifier, signing: orders_key }, &process)
    });
    let orders = in_service("orders", orders.await)?;

    config.gateway.upstreams.products.url = http_url(products);
    config.gateway.upstreams.orders.url = http_url(orders);
    let gateway = with_service("gateway", async {
        let verifier = verifier(palisade_gateway::AUDIENCE, &[], trusted.as_ref(), &config.gateway.auth, clock)?;
        palisade_gateway::start(&config.gateway, Keys { verifier, signing: gateway_key }, &process)
    });
    let gateway = in_service("gateway", gateway.await)?;

    let token = trusted.is_some().then(|| demo_token(&development, clock.as_ref())).transpose()?;
    process.until_ready(READY_TIMEOUT).await;
    let admin = SERVICES.map(|service| process.admin_ports.address(service));
    print_banner(&Addresses { gateway, products, orders, admin, has_console }, token.as_deref())?;
    Ok(())
}

/// Names the service in an error about one of its settings.
fn in_service<T>(service: &str, result: anyhow::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| match error.downcast::<Invalid>() {
        Ok(invalid) => invalid.in_section(service).into(),
        Err(error) => error,
    })
}

/// Generates a signing key that exists only in this process.
fn generate_key() -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_pem(&SigningKey::generate_pem()?)?)
}

fn http_url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Returns a verifier that trusts the services of this process, the development key if it is in
/// use, and the configured issuers.
fn verifier(
    audience: &str,
    callers: &[(&str, TrustedKey)],
    development: Option<&TrustedKey>,
    config: &palisade_middleware::auth::Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<Verifier>> {
    let issuer = |name: &str, key: &TrustedKey, internal| Issuer {
        internal,
        ..Issuer::of_users(name, audience, JwksSource::fixed(vec![key.clone()]))
    };
    let mut issuers: Vec<Issuer> = callers.iter().map(|(name, key)| issuer(name, key, true)).collect();
    issuers.extend(development.map(|key| issuer(DEV_ISSUER, key, false)));
    issuers.extend(config.issuers(audience, palisade_middleware::client::jwks::connect)?);
    Ok(Arc::new(config.verifier_of(issuers, clock.clone())?))
}

pub(crate) fn demo_token(key: &SigningKey, clock: &dyn Clock) -> anyhow::Result<String> {
    let token = UserToken {
        subject: "demo".to_owned(),
        scope: DEMO_SCOPES.to_owned(),
        issuer: DEV_ISSUER.to_owned(),
        audience: palisade_gateway::AUDIENCE.to_owned(),
        lifetime: DEMO_TOKEN_LIFETIME,
    };
    Ok(mint_user_token(&token, key, clock.now().unix_timestamp())?)
}

/// Prints the addresses, the URL of the API documentation, a token and an example request.
fn print_banner(config: &Addresses, token: Option<&str>) -> std::io::Result<()> {
    let Addresses { gateway, products, orders, admin, has_console } = config;
    let admin = admin.map(|address| address.map(|address| address.to_string()).unwrap_or_default());
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nPalisade is running.\n")?;
    writeln!(out, "  API              http://{gateway}   (documentation: http://{gateway}/docs)")?;
    writeln!(out, "  products, orders {products}, {orders} (gRPC)")?;
    writeln!(out, "  health, metrics  http://{}/readyz, {}, {}", admin[0], admin[1], admin[2])?;
    if *has_console {
        writeln!(out, "  console          http://{}/console   (requests, traces, breakers, faults; `palisade demo` sends load)", admin[0])?;
    }
    if let Some(token) = token {
        writeln!(out, "\nexport TOKEN={token}")?;
        writeln!(
            out,
            "curl -s -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' http://{gateway}/products -d '{{\"name\":\"Desk lamp\",\"price\":24.50,\"quantity\":10,\"category\":\"lighting\"}}'"
        )?;
    }
    out.flush()
}

/// Addresses of the services of this process.
struct Addresses {
    gateway: SocketAddr,
    products: SocketAddr,
    orders: SocketAddr,
    /// Admin addresses of [`SERVICES`].
    admin: [Option<SocketAddr>; 3],
    /// Whether the gateway's admin port has the console.
    has_console: bool,
}

#[cfg(test)]
mod tests {
    use palisade_middleware::method_table::Method;

    #[test]
    fn request_costs_the_same_over_http_and_grpc() {
        let http = |verb, path| {
            let method = palisade_gateway::METHODS.iter().find(|method| (method.verb, method.path) == (verb, path));
            method.unwrap_or_else(|| panic!("{verb} {path}")).cost
        };
        let products: &[Method] = &palisade_products::grpc::METHODS;
        let orders: &[Method] = &palisade_orders::grpc::METHODS;
        let grpc = |methods: &[Method], name: &str| {
            let method = methods.iter().find(|method| method.path.rsplit_once('/').is_some_and(|(_, of)| of == name));
            method.unwrap_or_else(|| panic!("{name}")).cost
        };
        for (verb, path, methods, name) in [
            ("POST", "/products", products, "CreateProduct"),
            ("GET", "/products", products, "FindAll"),
            ("GET", "/products/{id}", products, "FindOne"),
            ("GET", "/products/{id}/history", products, "FindHistory"),
            ("PUT", "/products/{id}", products, "Update"),
            ("PATCH", "/products/{id}", products, "PatchProduct"),
            ("DELETE", "/products/{id}", products, "Remove"),
            ("POST", "/products/{id}/stock-adjustments", products, "AdjustStock"),
            ("GET", "/products/{id}/stock-adjustments", products, "ListStockAdjustments"),
            ("POST", "/orders", orders, "CreateOrder"),
            ("GET", "/orders", orders, "FindAll"),
            ("GET", "/orders/{id}", orders, "FindOne"),
            ("GET", "/orders/{id}/history", orders, "FindHistory"),
            ("PUT", "/orders/{id}", orders, "ReviseOrder"),
            ("PUT", "/orders/{id}/status", orders, "UpdateStatus"),
            ("DELETE", "/orders/{id}", orders, "Remove"),
        ] {
            assert_eq!(http(verb, path), grpc(methods, name), "{verb} {path}");
        }
        assert!(grpc(products, "FindAll") > grpc(products, "FindOne"));
    }
}
