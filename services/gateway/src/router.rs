//! Routes of the HTTP API and their required scopes.

use axum::{Router, routing::get};
use palisade_middleware::{
    method_table::{Access, Method},
    rejection::{Rejection, reasons},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    callers::{self, Callers},
    docs, extract, openapi, orders, products,
    upstreams::Upstreams,
};

const READ_PRODUCTS: Access = Access::Scope("products:read");
const WRITE_PRODUCTS: Access = Access::Scope("products:write");
// `orders:admin` grants all actions on all orders. The orders service checks the ownership.
const READ_ORDERS: Access = Access::AnyScope(&["orders:read", "orders:admin"]);
const WRITE_ORDERS: Access = Access::AnyScope(&["orders:write", "orders:admin"]);

// Costs in tokens of the caller's rate limit, the same as over gRPC. A read costs one.
const LIST_COST: u32 = 4;
const WRITE_COST: u32 = 2;
/// An order is a saga: two transactions and a call of products.
const ORDER_COST: u32 = 4;

/// Method table of [`router`].
pub static METHODS: [Method; 20] = [
    Method::http("POST", "/products", WRITE_PRODUCTS).cost(WRITE_COST),
    Method::http("GET", "/products", READ_PRODUCTS).cost(LIST_COST),
    Method::http("GET", "/products/{id}", READ_PRODUCTS),
    // It names the users who changed the product.
    Method::http("GET", "/products/{id}/history", WRITE_PRODUCTS).cost(LIST_COST),
    Method::http("PUT", "/products/{id}", WRITE_PRODUCTS).cost(WRITE_COST),
    Method::http("PATCH", "/products/{id}", WRITE_PRODUCTS).cost(WRITE_COST),
    Method::http("DELETE", "/products/{id}", WRITE_PRODUCTS).cost(WRITE_COST),
    Method::http("POST", "/products/{id}/stock-adjustments", WRITE_PRODUCTS).cost(WRITE_COST),
    Method::http("GET", "/products/{id}/stock-adjustments", WRITE_PRODUCTS).cost(LIST_COST),
    Method::http("POST", "/orders", WRITE_ORDERS).cost(ORDER_COST).log_refusals(),
    Method::http("GET", "/orders", READ_ORDERS).cost(LIST_COST),
    Method::http("GET", "/orders/{id}", READ_ORDERS),
    Method::http("GET", "/orders/{id}/history", READ_ORDERS).cost(LIST_COST),
    Method::http("PUT", "/orders/{id}", WRITE_ORDERS).cost(ORDER_COST).log_refusals(),
    Method::http("GET", "/orders/{id}/events", READ_ORDERS).streaming(),
    Method::http("PUT", "/orders/{id}/status", WRITE_ORDERS).cost(WRITE_COST).log_refusals(),
    Method::http("DELETE", "/orders/{id}", WRITE_ORDERS).cost(WRITE_COST),
    Method::http("GET", "/openapi.json", Access::Public).static_content(),
    Method::http("GET", "/docs", Access::Public).static_content(),
    Method::http("GET", "/docs/{asset}", Access::Public).static_content(),
];

/// Returns the HTTP API over these services. The server stack around it creates the request
/// context, authorizes by [`METHODS`] and encodes rejections as problems.
pub fn router(upstreams: Upstreams, callers: Callers) -> Router {
    let (routes, document) = api().with_state(upstreams).split_for_parts();
    let document = docs::SerializedDocument(openapi::to_json(document).into());
    routes
        .route("/openapi.json", get(docs::openapi).with_state(document))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::from_fn(extract::reject_repeated))
        .layer(axum::middleware::from_fn_with_state(callers, callers::record))
}

/// Returns the routes with their `OpenAPI` documentation.
fn api() -> OpenApiRouter<Upstreams> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(products::create, products::list))
        .routes(routes!(products::find, products::replace, products::patch, products::remove))
        .routes(routes!(products::history))
        .routes(routes!(products::adjust, products::ledger))
        .routes(routes!(orders::create, orders::list))
        .routes(routes!(orders::find, orders::revise, orders::remove))
        .routes(routes!(orders::history))
        .routes(routes!(orders::events))
        .routes(routes!(orders::set_status))
        .routes(routes!(docs::page))
        .routes(routes!(docs::asset))
}

async fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "unknown path")
}

/// The router adds the `Allow` header.
async fn method_not_allowed() -> Rejection {
    Rejection::new(&reasons::METHOD_NOT_ALLOWED, "the allow header lists the methods of this path")
}
