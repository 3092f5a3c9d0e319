//! `/products`.

use std::future::Future;

use axum::{
    Json,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::{Rejection, reasons};
use palisade_proto::products::v1::{CreateProductRequest, FindAllRequest, FindOneRequest, RemoveRequest, UpdateRequest};

use crate::{
    extract::{self, Id, IdempotencyKey, IfMatch, IfNoneMatch, Query, etag},
    openapi::Problem,
    problem::{self, is_replayed, settle},
    upstreams::Upstreams,
};

mod body;

use body::{Filters, Product, ProductInput, ProductPage};

/// A copy may be kept and shown again once the service has said that it is still the present one.
const REVALIDATE: &str = "private, no-cache";

/// Add a product.
///
/// With an `Idempotency-Key` the same request can be sent again for 24 hours and adds one product.
#[utoipa::path(post, path = "/products", operation_id = "createProduct", tag = "products", security(("bearer" = ["products:write"])),
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255, description = "Visible ASCII, quoted or bare", example = "4be1c5c4-6f7c")),
    request_body = ProductInput,
    responses(
        (status = 201, body = Product, description = "Added", headers(
            ("Location" = String, description = "Path of the product"),
            ("ETag" = String, description = "Its version in quotes"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored answer to an earlier request"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`request_in_progress`: the first request with this key is still running"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`idempotency_key_reused`: the key was used with another body"),
    ))]
pub(crate) async fn create(
    State(Upstreams { mut products, .. }): State<Upstreams>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    extract::Json(input): extract::Json<ProductInput>,
) -> Result<Response, Rejection> {
    let (product, broken) = input.into_proto();
    let key = idempotency_key.clone();
    let request = extract::repeatable(CreateProductRequest { product: Some(product), idempotency_key }, &key);
    let answer = settle(products.create_product(request).await, broken);
    extract::note(&key, &answer);
    let answer = answer?;
    let replayed = is_replayed(&answer);
    let product = Product::try_from(answer.into_inner())?;
    let headers = [(LOCATION, format!("/products/{}", product.id)), (ETAG, etag(product.version))];
    Ok((StatusCode::CREATED, headers, replayed, Json(product)).into_response())
}

/// List products.
#[utoipa::path(get, path = "/products", operation_id = "listProducts", tag = "products", security(("bearer" = ["products:read"])),
    params(Filters),
    responses((status = 200, body = ProductPage, description = "One page")))]
pub(crate) async fn list(
    State(Upstreams { mut products, .. }): State<Upstreams>,
    Query(filters): Query<Filters>,
) -> Result<Response, Rejection> {
    let page = products.find_all(FindAllRequest::from(filters)).await.map_err(problem::of_query)?.into_inner();
    Ok(([(CACHE_CONTROL, REVALIDATE)], Json(ProductPage::try_from(page)?)).into_response())
}

/// Read a product.
#[utoipa::path(get, path = "/products/{id}", operation_id = "findProduct", tag = "products", security(("bearer" = ["products:read"])),
    params(
        ("id" = String, Path, format = Uuid, description = "The product's id"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags the caller has, or `*`", example = "\"3\"")),
    responses(
        (status = 200, body = Product, description = "The product", headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 304, description = "The caller has this version", headers(("ETag" = String, description = "Its version in quotes"))),
    ))]
pub(crate) async fn find(
    State(Upstreams { mut products, .. }): State<Upstreams>,
    Id(id): Id,
    if_none_match: IfNoneMatch,
) -> Result<Response, Rejection> {
    let product = products.find_one(FindOneRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
    let headers = [(ETAG, etag(product.version)), (CACHE_CONTROL, REVALIDATE.to_owned())];
    if if_none_match.has(product.version) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, Json(Product::try_from(product)?)).into_response())
}

/// Replace a product.
///
/// `quantity` becomes what can be sold from now on; units that open reservations hold are not part of it.
#[utoipa::path(put, path = "/products/{id}", operation_id = "replaceProduct", tag = "products", security(("bearer" = ["products:write"])),
    params(
        ("id" = String, Path, format = Uuid, description = "The product's id"),
        ("If-Match" = Option<String>, Header, description = "Entity tags (10 at most) of the versions that may be replaced, or `*`", example = "\"3\"")),
    request_body = ProductInput,
    responses(
        (status = 200, body = Product, description = "Replaced", headers(("ETag" = String, description = "Its new version in quotes"))),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "`version_mismatch`: the product has none of these versions"),
    ))]
pub(crate) async fn replace(
    State(Upstreams { products, .. }): State<Upstreams>,
    Id(id): Id,
    if_match: IfMatch,
    extract::Json(input): extract::Json<ProductInput>,
) -> Result<Response, Rejection> {
    let (product, broken) = input.into_proto();
    let answer = guarded(if_match, |expected_version| {
        let request = UpdateRequest { id: id.to_string(), product: Some(product.clone()), expected_version };
        let (mut products, broken) = (products.clone(), broken.clone());
        async move { settle(products.update(request).await, broken) }
    });
    let product = Product::try_from(answer.await?.into_inner())?;
    Ok(([(ETAG, etag(product.version))], Json(product)).into_response())
}

/// Remove a product.
#[utoipa::path(delete, path = "/products/{id}", operation_id = "removeProduct", tag = "products", security(("bearer" = ["products:write"])),
    params(
        ("id" = String, Path, format = Uuid, description = "The product's id"),
        ("If-Match" = Option<String>, Header, description = "Entity tags (10 at most) of the versions that may be removed, or `*`", example = "\"3\"")),
    responses(
        (status = 204, description = "Removed"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`product_in_use`: it has open reservations"),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "`version_mismatch`: the product has none of these versions"),
    ))]
pub(crate) async fn remove(
    State(Upstreams { products, .. }): State<Upstreams>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, Rejection> {
    let answer = guarded(if_match, |expected_version| {
        let request = RemoveRequest { id: id.to_string(), expected_version };
        let mut products = products.clone();
        async move { products.remove(request).await.map_err(problem::rejection) }
    });
    answer.await.map(|_| StatusCode::NO_CONTENT)
}

/// Makes a change to the first version of `if_match` that is the present one.
async fn guarded<T, F: Future<Output = Result<T, Rejection>>>(
    if_match: IfMatch,
    change: impl Fn(Option<i64>) -> F,
) -> Result<T, Rejection> {
    let mut mismatch = Rejection::new(&reasons::VERSION_MISMATCH, "the product has none of the versions in if-match");
    for version in if_match.attempts() {
        match change(version).await {
            Err(rejection) if *rejection.reason() == reasons::VERSION_MISMATCH => mismatch = rejection,
            settled => return settled,
        }
    }
    Err(mismatch)
}
