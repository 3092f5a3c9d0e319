//! Every route of the HTTP API, and who may use it.

use axum::Router;
use palisade_middleware::{
    method_table::{Access, Method},
    rejection::{Rejection, reasons},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{docs, openapi, orders, products, upstreams::Upstreams};

const READ_PRODUCTS: Access = Access::Scope("products:read");
const WRITE_PRODUCTS: Access = Access::Scope("products:write");
// `orders:admin` stands for all actions on all orders; whose order it is, the service checks.
const READ_ORDERS: Access = Access::AnyScope(&["orders:read", "orders:admin"]);
const WRITE_ORDERS: Access = Access::AnyScope(&["orders:write", "orders:admin"]);

/// The method table of [`router`].
pub static METHODS: [Method; 14] = [
    Method::http("POST", "/products", WRITE_PRODUCTS),
    Method::http("GET", "/products", READ_PRODUCTS),
    Method::http("GET", "/products/{id}", READ_PRODUCTS),
    Method::http("PUT", "/products/{id}", WRITE_PRODUCTS),
    Method::http("DELETE", "/products/{id}", WRITE_PRODUCTS),
    Method::http("POST", "/orders", WRITE_ORDERS),
    Method::http("GET", "/orders", READ_ORDERS),
    Method::http("GET", "/orders/{id}", READ_ORDERS),
    Method::http("GET", "/orders/{id}/events", READ_ORDERS).streaming(),
    Method::http("PUT", "/orders/{id}/status", WRITE_ORDERS),
    Method::http("DELETE", "/orders/{id}", WRITE_ORDERS),
    Method::http("GET", "/openapi.json", Access::Public),
    Method::http("GET", "/docs", Access::Public),
    Method::http("GET", "/docs/{asset}", Access::Public),
];

/// The HTTP API over these services. The server stack stands around it: it makes the request's context, checks who asks against [`METHODS`],
/// and writes refusals as problems.
pub fn router(upstreams: Upstreams) -> Router {
    Router::from(api().with_state(upstreams)).fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

/// The routes with their documentation.
pub(crate) fn api() -> OpenApiRouter<Upstreams> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(products::create, products::list))
        .routes(routes!(products::find, products::replace, products::remove))
        .routes(routes!(orders::create, orders::list))
        .routes(routes!(orders::find, orders::remove))
        .routes(routes!(orders::events))
        .routes(routes!(orders::set_status))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
        .routes(routes!(docs::asset))
}

async fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "there is nothing at this path")
}

/// The router adds `Allow`.
async fn method_not_allowed() -> Rejection {
    Rejection::new(&reasons::METHOD_NOT_ALLOWED, "see the header allow for the methods of this path")
}
