//! Erasure of a subject in MongoDB. Every step reads whole collections: no request needs an index
//! by subject.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use palisade_middleware::auth::Subject;

use super::MongoStore;
use crate::store::{database::Error, erasure::ErasureStore};

#[async_trait]
impl ErasureStore for MongoStore {
    async fn erase_keys(&self, subject: Subject, limit: u32) -> Result<u64, Error> {
        let db = &self.collections;
        let mut deleted = 0;
        for keys in [db.keys.clone_with_type::<Document>(), db.adjustment_keys.clone_with_type()] {
            let own = keys.find(doc! { "_id.subject": subject.as_str() }).projection(doc! { "_id": 1 });
            // A limit of 0 is none.
            let left = i64::from(limit) - i64::try_from(deleted).unwrap_or(i64::MAX);
            if left > 0 {
                let batch: Vec<Document> = own.limit(left).await?.try_collect().await?;
                let ids: Vec<Bson> = batch.into_iter().filter_map(|mut key| key.remove("_id")).collect();
                deleted += keys.delete_many(doc! { "_id": { "$in": ids } }).await?.deleted_count;
            }
        }
        Ok(deleted)
    }

    async fn erase_authors(&self, subject: Subject, pseudonym: Subject, limit: u32) -> Result<u64, Error> {
        let ledger = self.collections.ledger.clone_with_type::<Document>();
        let own = doc! { "actor": subject.as_str() };
        let batch: Vec<Document> = ledger.find(own).projection(doc! { "_id": 1 }).limit(limit.into()).await?.try_collect().await?;
        let ids: Vec<Bson> = batch.into_iter().filter_map(|mut entry| entry.remove("_id")).collect();
        let replace = doc! { "$set": { "actor": pseudonym.as_str() } };
        Ok(ledger.update_many(doc! { "_id": { "$in": ids }, "actor": subject.as_str() }, replace).await?.modified_count)
    }

    async fn erase_actors(&self, subject: Subject, pseudonym: Subject, limit: u32) -> Result<u64, Error> {
        let products = self.collections.products.clone_with_type::<Document>();
        let own = doc! { "history.actor": subject.as_str() };
        let batch = products.find(own).projection(doc! { "history.actor": 1 }).limit(limit.into());
        let batch: Vec<Document> = batch.await?.try_collect().await?;
        let is_own =
            |entry: &&Bson| entry.as_document().is_some_and(|entry| entry.get_str("actor").is_ok_and(|actor| actor == subject.as_str()));
        let count = |product: &Document| product.get_array("history").map_or(0, |history| history.iter().filter(is_own).count());
        let erased: usize = batch.iter().map(count).sum();
        let ids: Vec<Bson> = batch.into_iter().filter_map(|mut product| product.remove("_id")).collect();
        let replace = products.update_many(doc! { "_id": { "$in": ids } }, doc! { "$set": { "history.$[own].actor": pseudonym.as_str() } });
        replace.array_filters(vec![doc! { "own.actor": subject.as_str() }]).await?;
        Ok(erased as u64)
    }
}
