//! Idempotent create. The response is stored before the product: an executor that finds a response
//! without its product inserts it.

use mongodb::bson::{Binary, Document, doc, spec::BinarySubtype};
use palisade_middleware::{auth::Subject, clock};
use time::OffsetDateTime;

use super::{
    collections::{Collections, MAX_TIME, is_duplicate},
    documents::{KeyDocument, KeyId, ProductDocument, bson_id, bson_time},
    ledger,
    new_product::NewProduct,
};
use crate::{
    product::Product,
    store::{
        database::Error,
        roles::{CreateOutcome, IdempotencyKey, KEY_TTL},
    },
};

pub(super) async fn create(
    db: &Collections,
    product: Product,
    key: Option<IdempotencyKey>,
    actor: Subject,
    now: OffsetDateTime,
) -> Result<CreateOutcome, Error> {
    let Some(key) = key else {
        insert_once(db, ProductDocument::from(&product), actor).await?;
        ledger::flush(db, bson_id(product.id)).await;
        return Ok(CreateOutcome::Created { product, replayed: false });
    };
    let new = KeyDocument {
        id: KeyId { subject: key.subject.to_string(), key: key.key },
        fingerprint: Binary { subtype: BinarySubtype::Generic, bytes: key.fingerprint.to_vec() },
        product: ProductDocument::from(&product),
        done: false,
        expires_at: bson_time(clock::after(now, KEY_TTL)),
    };
    loop {
        match db.keys.insert_one(&new).await {
            Ok(_) => {
                finish(db, &new).await?;
                ledger::flush(db, bson_id(product.id)).await;
                return Ok(CreateOutcome::Created { product, replayed: false });
            }
            Err(error) if !is_duplicate(&error) => return Err(error.into()),
            Err(_) => {}
        }
        let Some(stored) = db.keys.find_one(by_id(&new.id)).max_time(MAX_TIME).await? else { continue };
        if stored.expires_at <= bson_time(now) {
            let mut expired = by_id(&stored.id);
            expired.insert("expiresAt", stored.expires_at);
            db.keys.delete_one(expired).await?;
            continue;
        }
        if stored.fingerprint != new.fingerprint {
            return Ok(CreateOutcome::KeyReused);
        }
        if !stored.done {
            finish(db, &stored).await?;
        }
        return Ok(CreateOutcome::Created { product: stored.product.try_into()?, replayed: true });
    }
}

/// Inserts the product of a stored response.
async fn finish(db: &Collections, key: &KeyDocument) -> Result<(), Error> {
    let actor = Subject::parse(&key.id.subject).map_err(|error| Error::Corrupt(format!("subject {error}")))?;
    insert_once(db, key.product.clone(), actor).await?;
    db.keys.update_one(by_id(&key.id), doc! { "$set": { "done": true } }).await?;
    Ok(())
}

/// Inserts a product unless it exists.
async fn insert_once(db: &Collections, product: ProductDocument, actor: Subject) -> Result<(), Error> {
    match db.products.clone_with_type().insert_one(NewProduct::new(product, actor)?).await {
        Err(error) if !is_duplicate(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn by_id(id: &KeyId) -> Document {
    doc! { "_id": { "subject": &id.subject, "key": &id.key } }
}
