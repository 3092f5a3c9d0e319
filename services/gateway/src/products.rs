//! HTTP handlers of `/products`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{
        StatusCode,
        header::{ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::Rejection;
use palisade_proto::products::v1::{CreateProductRequest, FindAllRequest, FindOneRequest, RemoveRequest, UpdateRequest};

use crate::{
    cache::{Changes, Key, NoCache, Representation, Version},
    extract::{self, Id, IdempotencyKey, Preconditions, Query, etag},
    problem::{self, Problem, merge_violations, replay_header},
    upstreams::Upstreams,
};

mod body;
mod history;
mod patch;
mod stock;

use body::{Filters, Product, ProductInput, ProductPage};
pub(crate) use history::{__path_history, history};
pub(crate) use patch::{__path_patch, patch};
pub(crate) use stock::{__path_adjust, __path_ledger, adjust, ledger};

/// Create a product
///
/// With an `Idempotency-Key`, the request can be repeated for 24 hours and creates one product.
#[utoipa::path(post, path = "/products", operation_id = "createProduct", tag = "products", security(("bearer" = ["products:write"])),
    request_body = ProductInput,
    responses(
        (status = 201, body = Product, description = "The product is created", headers(
            ("Location" = String, description = "Path of the product"),
            ("ETag" = String, description = "Version of the product, in quotes"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored response of an earlier request with this key"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`request_in_progress`: the first request with this key is still running"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`idempotency_key_reused`: the key was used with another body"),
    ))]
pub(crate) async fn create(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    preconditions: Preconditions,
    extract::Json(input): extract::Json<ProductInput>,
) -> Result<Response, Rejection> {
    preconditions.check_post()?;
    let (product, violations) = input.into_proto();
    let key = idempotency_key.clone();
    let request = extract::retryable_with_key(CreateProductRequest { product: Some(product), idempotency_key }, &key);
    let write = async move { Ok((Changes::of_stock([]), merge_violations(products.create_product(request).await, violations)?)) };
    let result = cache.invalidate_after(Vec::new(), write).await;
    extract::record_key_outcome(&key, &result);
    let response = result?;
    let replay_header = replay_header(&response);
    let product = Product::try_from(response.into_inner())?;
    let headers = [(LOCATION, format!("/products/{}", product.id)), (ETAG, etag(product.version))];
    Ok((StatusCode::CREATED, headers, replay_header, Json(product)).into_response())
}

/// List products
///
/// Filters, sorting and cursor pagination. With the response cache enabled (`cache.ttl_ms`), a page
/// may be up to that old and has the same cache headers as a single product.
#[utoipa::path(get, path = "/products", operation_id = "listProducts", tag = "products", security(("bearer" = ["products:read"])),
    params(Filters),
    responses(
        (status = 200, body = ProductPage, description = "A page of products", headers(
            ("ETag" = Option<String>, description = "Digest of the page. Only with the response cache."),
            ("Cache-Status" = Option<String>, description = "Origin of the response (RFC 9211). Only with the response cache."),
            ("Age" = Option<u64>, description = "Age of a cached response in seconds"))),
        (status = 304, description = "The client's copy of the page is current", headers(("ETag" = String, description = "Digest of the page"))),
    ))]
pub(crate) async fn list(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    Query(filters): Query<Filters>,
    no_cache: NoCache,
    preconditions: Preconditions,
) -> Result<Response, Rejection> {
    // Pages have an entity tag only with the cache: hashing each response costs more than it saves.
    let request = FindAllRequest::from(filters);
    let key = Key::Page(Arc::new(request.clone()));
    let load = async move { Representation::new(&ProductPage::try_from(products.find_all(request).await?.into_inner())?, None) };
    let page = cache.read(key, no_cache, load).await.map_err(problem::from_query_status)?;
    page.into_conditional_response(&preconditions)
}

/// Get a product
///
/// With the response cache enabled (`cache.ttl_ms`), the response may be up to that old, and older
/// while the products service is unavailable. `Cache-Control: no-cache` bypasses the cache.
#[utoipa::path(get, path = "/products/{id}", operation_id = "findProduct", tag = "products", security(("bearer" = ["products:read"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product")),
    responses(
        (status = 200, body = Product, description = "The product", headers(
            ("ETag" = String, description = "Version of the product, in quotes"),
            ("Cache-Status" = Option<String>, description = "Origin of the response (RFC 9211). Only with the response cache."),
            ("Age" = Option<u64>, description = "Age of a cached response in seconds"))),
        (status = 304, description = "The client's copy is current", headers(("ETag" = String, description = "Version of the product, in quotes"))),
    ))]
pub(crate) async fn find(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
    no_cache: NoCache,
) -> Result<Response, Rejection> {
    let load = async move {
        let product = products.find_one(FindOneRequest { id: id.to_string() }).await?.into_inner();
        let version = product.version;
        Representation::new(&Product::try_from(product)?, Some(version))
    };
    let product = cache.read(Key::Product(id), no_cache, load).await.map_err(problem::rejection)?;
    product.into_conditional_response(&preconditions)
}

/// Replace a product
///
/// `quantity` becomes the number of units available for sale. Units held by open reservations are
/// not included.
#[utoipa::path(put, path = "/products/{id}", operation_id = "replaceProduct", tag = "products", security(("bearer" = ["products:write"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product")),
    request_body = ProductInput,
    responses(
        (status = 200, body = Product, description = "The product is replaced", headers(("ETag" = String, description = "New version of the product, in quotes"))),
    ))]
pub(crate) async fn replace(
    State(Upstreams { products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
    extract::Json(input): extract::Json<ProductInput>,
) -> Result<Response, Rejection> {
    let (product, violations) = input.into_proto();
    let write = Box::pin(async move {
        let change = preconditions.guard(|preconditions, expected_version| {
            let request = UpdateRequest { id: id.to_string(), product: Some(product.clone()), expected_version, preconditions };
            let (mut products, violations) = (products.clone(), violations.clone());
            async move { merge_violations(products.update(request).await, violations) }
        });
        let product = change.await?.into_inner();
        Ok((Changes::of(id, Version::Known(product.version)), product))
    });
    let product = Product::try_from(cache.invalidate_after(vec![id], write).await?)?;
    Ok(([(ETAG, etag(product.version))], Json(product)).into_response())
}

/// Delete a product
///
/// A product with open reservations cannot be deleted.
#[utoipa::path(delete, path = "/products/{id}", operation_id = "removeProduct", tag = "products", security(("bearer" = ["products:write"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product")),
    responses(
        (status = 204, description = "The product is deleted"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`product_in_use`: open reservations hold units of the product"),
    ))]
pub(crate) async fn remove(
    State(Upstreams { products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<StatusCode, Rejection> {
    let write = async move {
        let change = preconditions.guard(|preconditions, expected_version| {
            let request = RemoveRequest { id: id.to_string(), expected_version, preconditions };
            let mut products = products.clone();
            async move { products.remove(request).await.map_err(problem::rejection) }
        });
        Ok((Changes::of(id, Version::Removed), change.await?))
    };
    cache.invalidate_after(vec![id], write).await?;
    Ok(StatusCode::NO_CONTENT)
}
