//! Collections of the store with their indexes, and the driver's errors.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, Cursor, Database, IndexModel,
    bson::{Document, deserialize_from_document, doc},
    error::{Error as DriverError, ErrorKind, WriteFailure},
    options::IndexOptions,
};

use palisade_middleware::store_instrumentation::note_status_code;
use serde::de::DeserializeOwned;

use super::{
    documents::{KeyDocument, ProductDocument, RemovedDocument, ReservationDocument, Stock},
    ledger_documents::{AdjustmentKeyDocument, EntryDocument},
};
use crate::store::database::{Error, readable};

/// Error code of an insert whose `_id` exists (`DuplicateKey`).
pub(super) const DUPLICATE_KEY: i32 = 11_000;

/// Server-side time limit of a read (`maxTimeMS`).
pub(super) const MAX_TIME: Duration = Duration::from_millis(1_500);

/// Collections. `stock` is a second view of `products`.
#[derive(Debug)]
pub(super) struct Collections {
    pub(super) products: Collection<ProductDocument>,
    pub(super) stock: Collection<Stock>,
    pub(super) reservations: Collection<ReservationDocument>,
    pub(super) keys: Collection<KeyDocument>,
    pub(super) ledger: Collection<EntryDocument>,
    pub(super) adjustment_keys: Collection<AdjustmentKeyDocument>,
    pub(super) removed: Collection<RemovedDocument>,
    pub(super) leases: Collection<Document>,
    /// Reservations that cannot be read, by their id.
    pub(super) quarantine: Collection<Document>,
    /// One document, which readiness writes.
    pub(super) write_probe: Collection<Document>,
}

impl Collections {
    pub(super) fn new(database: &Database) -> Self {
        Self {
            products: database.collection("products"),
            stock: database.collection("products"),
            reservations: database.collection("reservations"),
            keys: database.collection("idempotency_keys"),
            ledger: database.collection("stock_adjustments"),
            adjustment_keys: database.collection("adjustment_keys"),
            removed: database.collection("removed_products"),
            leases: database.collection("leases"),
            quarantine: database.collection("quarantined_reservations"),
            write_probe: database.collection("write_probe"),
        }
    }

    /// Returns the fields of a stock document that reservations use, to leave out long fields.
    pub(super) fn stock_fields() -> Document {
        doc! { "description": 0, "folded": 0, "search": 0, "history": 0 }
    }

    /// Creates the indexes. Creating existing ones again is cheap.
    pub(super) async fn create_indexes(&self) -> Result<(), Error> {
        // One per sort order, with and without a category. `isActive` is last, so it is filtered
        // within the index.
        self.products
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
        let unpublished = IndexOptions::builder().partial_filter_expression(doc! { "news": { "$exists": true } }).build();
        self.products.create_index(IndexModel::builder().keys(doc! { "news": 1 }).options(unpublished).build()).await?;
        // For searches. Products without search data have the key null.
        self.products.create_index(index(doc! { "search.grams": 1 })).await?;
        // For the sweeper and the list of open reservations.
        self.reservations.create_indexes([index(doc! { "state": 1, "expiresAt": 1 }), index(doc! { "state": 1, "_id": 1 })]).await?;
        // Partial index for the sweeper: only reservations with an unfinished revision.
        let unfinished = IndexOptions::builder().partial_filter_expression(doc! { "revision": { "$exists": true } }).build();
        self.reservations.create_index(IndexModel::builder().keys(doc! { "updatedAt": 1 }).options(unfinished).build()).await?;
        // For the pages and sums of a ledger, and for the cleanup.
        self.ledger.create_indexes([index(doc! { "productId": 1, "sequence": 1 }), index(doc! { "kind": 1, "createdAt": 1 })]).await?;
        self.adjustment_keys.create_index(index(doc! { "expiresAt": 1 })).await?;
        // For the sweeper and the removal of a product.
        self.keys.create_indexes([index(doc! { "expiresAt": 1 }), index(doc! { "product._id": 1 })]).await?;
        Ok(())
    }
}

/// Decodes a document of `collection`.
pub(super) fn decode<T: DeserializeOwned>(document: Document) -> Result<T, Error> {
    deserialize_from_document(document).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Reads all documents of `cursor` and decodes them one by one. Those that cannot be read are
/// recorded as rows of `collection` and left out.
pub(super) async fn decode_all<T: DeserializeOwned>(collection: &'static str, cursor: Cursor<Document>) -> Result<Vec<T>, Error> {
    let documents: Vec<Document> = cursor.try_collect().await?;
    Ok(documents.into_iter().filter_map(|document| readable(collection, decode(document))).collect())
}

fn index(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        /// `MaxTimeMSExpired`
        const MAX_TIME_EXPIRED: i32 = 50;
        let code = match &*error.kind {
            ErrorKind::Command(command) => Some(command.code),
            ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
            _ => None,
        };
        if let Some(code) = code {
            note_status_code(&code.to_string());
        }
        match &*error.kind {
            ErrorKind::Command(command) if command.code == MAX_TIME_EXPIRED => Self::Timeout,
            ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. } => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}

/// Whether the insert failed because its `_id` exists.
pub(super) fn is_duplicate(error: &DriverError) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == DUPLICATE_KEY,
        // From an upsert by `findAndModify`.
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        _ => false,
    }
}
