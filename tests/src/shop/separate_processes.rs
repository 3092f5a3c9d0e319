//! Shop with one or several separate processes per service.

use std::{process::Command, sync::Mutex};

use tempfile::TempDir;

use super::{
    SERVICES, Shop,
    keys::{configure_trust, generate_keys},
};
use crate::{
    client::gateways::Gateways,
    free_port::free_port,
    process::{Program, command},
};

/// Listen addresses of a service's replicas. Other processes keep them across a restart, so they
/// must stay free: ports below the ephemeral range.
struct Addresses(Vec<Address>);

struct Address {
    address: String,
    admin: String,
}

impl Shop {
    /// Starts this number of each of [`SERVICES`]. A store is a connection string, or `None` for a
    /// file in the shop's directory.
    pub(super) fn start(
        replicas: [usize; 3],
        (products_store, orders_store): (Option<&str>, Option<&str>),
        configure: impl Fn(&str, &mut Command),
    ) -> Self {
        let directory = TempDir::with_prefix("palisade-shop-").expect("a temporary directory can be made");
        let path = directory.path();
        generate_keys(path);
        let [gateway, products, orders] = replicas.map(Addresses::new);
        let store = |url: Option<&str>, file: &str| url.map_or_else(|| format!("sqlite://{}", path.join(file).display()), str::to_owned);
        let key = |service: &str| ("IDENTITY__SIGNING_KEY_FILE", path.join(format!("{service}.pem")).display().to_string());
        let settings = |service: &str| match service {
            "products" => vec![("STORE__URL", store(products_store, "products.db"))],
            "orders" => vec![("STORE__URL", store(orders_store, "orders.db")), ("UPSTREAMS__PRODUCTS__URL", products.url()), key(service)],
            _ => vec![("UPSTREAMS__PRODUCTS__URL", products.url()), ("UPSTREAMS__ORDERS__URL", orders.url()), key(service)],
        };
        let start = |service: &'static str| {
            let addresses = [&gateway, &products, &orders][SERVICES.iter().position(|name| *name == service).expect("a service")];
            let start = |place: &Address| {
                let mut command = command(service);
                command.env("PALISADE_LISTEN", &place.address).env("PALISADE_ADMIN_LISTEN", &place.admin);
                command.envs(settings(service).into_iter().map(|(key, value)| (format!("PALISADE_{key}"), value)));
                command.envs(configure_trust(service, path));
                configure(service, &mut command);
                Program::start(command, path)
            };
            (service, addresses.0.iter().map(start).collect())
        };
        let programs = ["products", "orders", "gateway"].map(start).into();
        let gateways = (gateway.0.len() > 1).then(|| Gateways::new(gateway.0.iter().map(|place| [&place.address, &place.admin])).into());
        Self { programs, gateways, tokens: Mutex::default(), directory }
    }
}

impl Addresses {
    fn new(replicas: usize) -> Self {
        let address = || format!("127.0.0.1:{}", free_port());
        Self((0..replicas).map(|_| Address { address: address(), admin: address() }).collect())
    }

    /// Returns all addresses as an upstream's `url`.
    fn url(&self) -> String {
        let urls: Vec<_> = self.0.iter().map(|place| format!("http://{}", place.address)).collect();
        urls.join(",")
    }
}
