//! Indexes. Creating existing ones again is cheap.

use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

use super::{Collections, Error};

pub(super) async fn create(db: &Collections) -> Result<(), Error> {
    // One per sort order, with and without a category. `isActive` is last, so it is filtered within
    // the index.
    db.products
        .create_indexes([
            index(doc! { "createdAt": 1, "_id": 1, "isActive": 1 }),
            index(doc! { "priceMinor": 1, "_id": 1, "isActive": 1 }),
            index(doc! { "name": 1, "_id": 1, "isActive": 1 }),
            index(doc! { "category": 1, "createdAt": 1, "_id": 1, "isActive": 1 }),
            index(doc! { "category": 1, "priceMinor": 1, "_id": 1, "isActive": 1 }),
            index(doc! { "category": 1, "name": 1, "_id": 1, "isActive": 1 }),
        ])
        .await?;
    // Partial index for the relay: only products with unpublished changes.
    let some = IndexOptions::builder().partial_filter_expression(doc! { "news": { "$exists": true } }).build();
    db.products.create_index(IndexModel::builder().keys(doc! { "news": 1 }).options(some).build()).await?;
    // For the sweeper and the list of open reservations.
    db.reservations.create_indexes([index(doc! { "state": 1, "expiresAt": 1 }), index(doc! { "state": 1, "_id": 1 })]).await?;
    // For the sweeper and the removal of a product.
    db.keys.create_indexes([index(doc! { "expiresAt": 1 }), index(doc! { "product._id": 1 })]).await?;
    Ok(())
}

fn index(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}
