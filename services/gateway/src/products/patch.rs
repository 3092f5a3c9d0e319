//! HTTP handler of `PATCH /products/{id}`.

use axum::{
    Json,
    extract::State,
    http::header::ETAG,
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::{Rejection, Violation};
use palisade_proto::products::v1::{self as proto, PatchProductRequest};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::{NEVER_VALID, Product};
use crate::{
    cache::{Changes, Version},
    extract::{Id, Integer, Member, MergePatch, Preconditions, etag},
    money::{Amount, NumberText},
    problem::merge_violations,
    upstreams::Upstreams,
};

/// Changes of a product. Absent fields keep their values. Unknown fields are rejected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProductPatch {
    /// 1 to 200 characters after trimming.
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, example = "Kettle")]
    name: Member<String>,
    /// `null` makes it empty.
    #[serde(default)]
    #[schema(value_type = Option<String>, required = false, max_length = 4_000, example = "1.7 l, steel")]
    description: Member<String>,
    /// Plain decimal number with at most 2 decimals and no exponent.
    #[serde(default)]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 9_999_999.99, multiple_of = 0.01, example = 24.9)]
    price: Member<NumberText>,
    /// New number of units available for sale.
    #[serde(default)]
    #[schema(value_type = i64, required = false, minimum = 0, maximum = 1_000_000_000, example = 120)]
    quantity: Member<Integer>,
    /// 1 to 100 characters after trimming.
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, example = "kitchen")]
    category: Member<String>,
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    is_active: Member<bool>,
}

impl ProductPatch {
    /// Converts the patch for the service and returns the violations that are visible only in the
    /// JSON.
    fn into_proto(self) -> (proto::ProductPatch, Vec<Violation>) {
        let (mut violations, mut removed) = (Vec::new(), Vec::new());
        let price = self.price.given("price", &mut removed).map(|price| {
            price.amount().unwrap_or_else(|error| {
                violations.push(Violation::new("price", error.code(), error.to_string()));
                Amount(NEVER_VALID)
            })
        });
        let patch = proto::ProductPatch {
            name: self.name.given("name", &mut removed),
            description: self.description.given("description", &mut removed),
            price_minor: price.map(|price| price.0),
            quantity: self.quantity.given("quantity", &mut removed).map(|quantity| quantity.0),
            category: self.category.given("category", &mut removed),
            is_active: self.is_active.given("isActive", &mut removed),
            removed,
        };
        (patch, violations)
    }
}

/// Change some fields of a product
///
/// JSON merge patch (RFC 7396). Only `description` may be `null`. The stock changes only with
/// `quantity`. `If-Match` protects the fields that the patch may overwrite: without `quantity`, it
/// holds unless another field has changed since that version. Sales in between do not fail it. With
/// `quantity`, the version must be the current one.
#[utoipa::path(patch, path = "/products/{id}", operation_id = "patchProduct", tag = "products", security(("bearer" = ["products:write"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product")),
    request_body(content((ProductPatch = "application/merge-patch+json"), (ProductPatch = "application/json"))),
    responses(
        (status = 200, body = Product, description = "The product after the patch", headers(("ETag" = String, description = "New version of the product, in quotes"))),
    ))]
pub(crate) async fn patch(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
    MergePatch(patch): MergePatch<ProductPatch>,
) -> Result<Response, Rejection> {
    let (patch, violations) = patch.into_proto();
    let request = PatchProductRequest { id: id.to_string(), patch: Some(patch), preconditions: preconditions.to_proto() };
    let write = Box::pin(async move {
        let product = merge_violations(products.patch_product(request).await, violations)?.into_inner();
        Ok((Changes::of(id, Version::Known(product.version)), product))
    });
    let product = Product::try_from(cache.invalidate_after(vec![id], write).await?)?;
    Ok(([(ETAG, etag(product.version))], Json(product)).into_response())
}
