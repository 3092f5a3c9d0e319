//! The indexes. Making them again is no work for the server.

use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

use super::{Collections, Error};

pub(super) async fn create(db: &Collections) -> Result<(), Error> {
    // One for each order, with and without a category; isActive last, so that it is filtered within the index.
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
    // For the relay; only those are in it that have news.
    let some = IndexOptions::builder().partial_filter_expression(doc! { "news": { "$exists": true } }).build();
    db.products.create_index(IndexModel::builder().keys(doc! { "news": 1 }).options(some).build()).await?;
    // For the sweeper, and for the list of open ones.
    db.reservations.create_indexes([index(doc! { "state": 1, "expiresAt": 1 }), index(doc! { "state": 1, "_id": 1 })]).await?;
    // For the sweeper, and for the removal of a product.
    db.keys.create_indexes([index(doc! { "expiresAt": 1 }), index(doc! { "product._id": 1 })]).await?;
    Ok(())
}

fn index(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}
