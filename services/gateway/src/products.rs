//! `/products`.

use std::{future::Future, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::{Rejection, reasons};
use palisade_proto::products::v1::{CreateProductRequest, FindAllRequest, FindOneRequest, RemoveRequest, UpdateRequest};

use crate::{
    cache::{Key, NoCache, Representation, Version},
    extract::{self, Id, IdempotencyKey, IfMatch, IfNoneMatch, Query, etag},
    openapi::Problem,
    problem::{self, is_replayed, merge_violations},
    upstreams::Upstreams,
};

mod body;

use body::{Filters, Product, ProductInput, ProductPage};

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
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    extract::Json(input): extract::Json<ProductInput>,
) -> Result<Response, Rejection> {
    let (product, violations) = input.into_proto();
    let key = idempotency_key.clone();
    let request = extract::retryable_with_key(CreateProductRequest { product: Some(product), idempotency_key }, &key);
    let work = async move { Ok((Version::Unknown, merge_violations(products.create_product(request).await, violations)?)) };
    let answer = cache.invalidate_after(None, work).await;
    extract::record_key_outcome(&key, &answer);
    let answer = answer?;
    let replayed = is_replayed(&answer);
    let product = Product::try_from(answer.into_inner())?;
    let headers = [(LOCATION, format!("/products/{}", product.id)), (ETAG, etag(product.version))];
    Ok((StatusCode::CREATED, headers, replayed, Json(product)).into_response())
}

/// List products.
///
/// With a cache (`cache.ttl_ms`) a page may be so old, and has the headers of a product that is read.
#[utoipa::path(get, path = "/products", operation_id = "listProducts", tag = "products", security(("bearer" = ["products:read"])),
    params(Filters, ("If-None-Match" = Option<String>, Header, description = "Entity tags the caller has, or `*`; heeded if there is a cache")),
    responses(
        (status = 200, body = ProductPage, description = "One page", headers(
            ("ETag" = Option<String>, description = "What is in it, if there is a cache"),
            ("Cache-Status" = Option<String>, description = "Where it comes from, if there is a cache (RFC 9211)"),
            ("Age" = Option<u64>, description = "Seconds since products answered it, if it was kept"))),
        (status = 304, description = "The caller has this page", headers(("ETag" = String, description = "What is in it"))),
    ))]
pub(crate) async fn list(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    Query(filters): Query<Filters>,
    no_cache: NoCache,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    // A page has an entity tag only where it is kept: making one costs more than it saves.
    let if_none_match = if cache.is_enabled() { IfNoneMatch::read(&headers)? } else { IfNoneMatch::default() };
    let request = FindAllRequest::from(filters);
    let key = Key::Page(Arc::new(request.clone()));
    let load = async move { Representation::new(&ProductPage::try_from(products.find_all(request).await?.into_inner())?, None) };
    let page = cache.read(key, no_cache, load).await.map_err(problem::from_query_status)?;
    Ok(page.into_conditional_response(&if_none_match))
}

/// Read a product.
///
/// With a cache (`cache.ttl_ms`) the answer may be so old, or older while products does not answer. `Cache-Control: no-cache` asks products.
#[utoipa::path(get, path = "/products/{id}", operation_id = "findProduct", tag = "products", security(("bearer" = ["products:read"])),
    params(
        ("id" = String, Path, format = Uuid, description = "The product's id"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags the caller has, or `*`", example = "\"3\"")),
    responses(
        (status = 200, body = Product, description = "The product", headers(
            ("ETag" = String, description = "Its version in quotes"),
            ("Cache-Status" = Option<String>, description = "Where it comes from, if there is a cache (RFC 9211)"),
            ("Age" = Option<u64>, description = "Seconds since products answered it, if it was kept"))),
        (status = 304, description = "The caller has this version", headers(("ETag" = String, description = "Its version in quotes"))),
    ))]
pub(crate) async fn find(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    if_none_match: IfNoneMatch,
    no_cache: NoCache,
) -> Result<Response, Rejection> {
    let load = async move {
        let product = products.find_one(FindOneRequest { id: id.to_string() }).await?.into_inner();
        let version = product.version;
        Representation::new(&Product::try_from(product)?, Some(version))
    };
    let product = cache.read(Key::Product(id), no_cache, load).await.map_err(problem::rejection)?;
    Ok(product.into_conditional_response(&if_none_match))
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
    State(Upstreams { products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    if_match: IfMatch,
    extract::Json(input): extract::Json<ProductInput>,
) -> Result<Response, Rejection> {
    let (product, violations) = input.into_proto();
    let answer = for_each_if_match(if_match, move |expected_version| {
        let request = UpdateRequest { id: id.to_string(), product: Some(product.clone()), expected_version };
        let (mut products, violations) = (products.clone(), violations.clone());
        async move { merge_violations(products.update(request).await, violations) }
    });
    let work = Box::pin(async move {
        let product = answer.await?.into_inner();
        Ok((Version::Known(product.version), product))
    });
    let product = Product::try_from(cache.invalidate_after(Some(id), work).await?)?;
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
    State(Upstreams { products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, Rejection> {
    let answer = for_each_if_match(if_match, move |expected_version| {
        let request = RemoveRequest { id: id.to_string(), expected_version };
        let mut products = products.clone();
        async move { products.remove(request).await.map_err(problem::rejection) }
    });
    cache.invalidate_after(Some(id), async move { Ok((Version::Removed, answer.await?)) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a change to the first version of `if_match` that is the present one.
async fn for_each_if_match<T, F: Future<Output = Result<T, Rejection>>>(
    if_match: IfMatch,
    change: impl Fn(Option<i64>) -> F,
) -> Result<T, Rejection> {
    let mut mismatch = Rejection::new(&reasons::VERSION_MISMATCH, "the product has none of the versions in if-match");
    for version in if_match.expected_versions() {
        match change(version).await {
            Err(rejection) if *rejection.reason() == reasons::VERSION_MISMATCH => mismatch = rejection,
            settled => return settled,
        }
    }
    Err(mismatch)
}
