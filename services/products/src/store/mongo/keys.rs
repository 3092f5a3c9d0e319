//! Idempotent create. The response is stored before the product: an executor that finds a response
//! without its product inserts it.

use mongodb::bson::{Binary, Document, doc, spec::BinarySubtype};
use time::OffsetDateTime;

use super::{
    Collections, MAX_TIME,
    documents::{KeyDocument, KeyId, ProductDocument, bson_time},
    is_duplicate, products,
};
use crate::{
    product::Product,
    store::{Created, Error, IdempotencyKey, KEY_TTL},
};

pub(super) async fn create(db: &Collections, product: Product, key: Option<IdempotencyKey>, now: OffsetDateTime) -> Result<Created, Error> {
    let Some(key) = key else {
        products::insert_once(db, ProductDocument::from(&product)).await?;
        return Ok(Created::Created { product, replayed: false });
    };
    let fresh = KeyDocument {
        id: KeyId { subject: key.subject, key: key.key },
        fingerprint: Binary { subtype: BinarySubtype::Generic, bytes: key.fingerprint.to_vec() },
        product: ProductDocument::from(&product),
        done: false,
        expires_at: bson_time(now + KEY_TTL),
    };
    loop {
        match db.keys.insert_one(&fresh).await {
            Ok(_) => {
                finish(db, &fresh).await?;
                return Ok(Created::Created { product, replayed: false });
            }
            Err(error) if !is_duplicate(&error) => return Err(error.into()),
            Err(_) => {}
        }
        let Some(stored) = db.keys.find_one(by_id(&fresh.id)).max_time(MAX_TIME).await? else { continue };
        if stored.expires_at <= bson_time(now) {
            let mut expired = by_id(&stored.id);
            expired.insert("expiresAt", stored.expires_at);
            db.keys.delete_one(expired).await?;
            continue;
        }
        if stored.fingerprint != fresh.fingerprint {
            return Ok(Created::KeyReused);
        }
        if !stored.done {
            finish(db, &stored).await?;
        }
        return Ok(Created::Created { product: stored.product.try_into()?, replayed: true });
    }
}

async fn finish(db: &Collections, answer: &KeyDocument) -> Result<(), Error> {
    products::insert_once(db, answer.product.clone()).await?;
    db.keys.update_one(by_id(&answer.id), doc! { "$set": { "done": true } }).await?;
    Ok(())
}

pub(super) async fn delete_expired(db: &Collections, now: OffsetDateTime) -> Result<u64, Error> {
    Ok(db.keys.delete_many(doc! { "expiresAt": { "$lte": bson_time(now) } }).await?.deleted_count)
}

fn by_id(id: &KeyId) -> Document {
    doc! { "_id": { "subject": &id.subject, "key": &id.key } }
}
