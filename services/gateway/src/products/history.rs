//! `/products/{id}/history`: every change of the catalogue fields of a product, with its actor.

use axum::{extract::State, response::Response};
use palisade_middleware::rejection::Rejection;
use palisade_proto::products::v1::{self as proto, FindHistoryRequest};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    extract::{Id, Preconditions},
    money::Amount,
    problem,
    text::non_empty,
    timestamp,
    upstreams::Upstreams,
};

/// History of a product, newest change first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProductHistory {
    #[schema(max_items = 50)]
    items: Vec<ProductChange>,
}

/// One change of a product: its creation, or a `PUT` or `PATCH` that changed a field.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProductChange {
    /// Version of the product after the change.
    #[schema(example = 3, minimum = 1)]
    version: i64,
    changes: ChangedFields,
    /// Subject of the user that made the change; `null` if it is unknown.
    #[schema(required = true, example = "alice")]
    actor: Option<String>,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    time: String,
}

/// Fields that changed. The others are absent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    name: Option<TextEdit>,
    /// `true` if the description changed. Its texts are not kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    description: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    price: Option<PriceEdit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    category: Option<TextEdit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    is_active: Option<FlagEdit>,
}

/// Text before and after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextEdit {
    /// `null` for the creation.
    #[schema(required = true, example = "Kettle")]
    from: Option<String>,
    #[schema(example = "Tea kettle")]
    to: String,
}

/// Price before and after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PriceEdit {
    /// `null` for the creation.
    #[schema(value_type = Option<f64>, required = true, example = 24.9)]
    from: Option<Amount>,
    #[schema(value_type = f64, example = 19.9)]
    to: Amount,
}

/// Flag before and after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlagEdit {
    /// `null` for the creation.
    #[schema(required = true, example = true)]
    from: Option<bool>,
    #[schema(example = false)]
    to: bool,
}

/// Get the history of a product
///
/// The latest 50 changes of the name, description, price, category and `isActive`, with their
/// actors and times, newest first. `GET /products/{id}/stock-adjustments` has the changes of the
/// quantity. Changes by earlier releases may be missing.
#[utoipa::path(get, path = "/products/{id}/history", operation_id = "findProductHistory", tag = "products",
    security(("bearer" = ["products:write"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product")),
    responses((status = 200, body = ProductHistory, description = "The latest changes of the product")))]
pub(crate) async fn history(
    State(Upstreams { mut products, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<Response, Rejection> {
    let history = products.find_history(FindHistoryRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
    let items = history.items.into_iter().map(ProductChange::try_from).collect::<Result<_, _>>()?;
    preconditions.unstored(ProductHistory { items })
}

impl TryFrom<proto::ProductChange> for ProductChange {
    type Error = Rejection;

    fn try_from(change: proto::ProductChange) -> Result<Self, Rejection> {
        let text = |edit: proto::TextEdit| TextEdit { from: edit.from, to: edit.to };
        let price = |edit: proto::PriceEdit| PriceEdit { from: edit.from_minor.map(Amount), to: Amount(edit.to_minor) };
        Ok(Self {
            version: change.version,
            changes: ChangedFields {
                name: change.name.map(text),
                description: change.description_changed,
                price: change.price.map(price),
                category: change.category.map(text),
                is_active: change.is_active.map(|edit| FlagEdit { from: edit.from, to: edit.to }),
            },
            actor: non_empty(change.actor),
            time: timestamp::to_rfc3339(change.at)?,
        })
    }
}
