//! Adjustments of the stock, and their idempotency keys.
//!
//! The first call with a key stores the id of its entry. Any call with the key then decides the
//! adjustment by one update of the product: it makes the change and adds the entry, or it adds a
//! refusal. The key gets its answer before the entry or the refusal leaves the product.
//!
//! An executor reads the product, then checks that the key has no answer, then updates the product
//! only if its `ledgerSequence` is unchanged. If another executor has decided in between, either
//! the product has the entry, or the key has its answer, or the sequence has changed. Hence an
//! executor that was suspended for any time cannot decide again.

use mongodb::{
    bson::{Binary, Bson, Document, doc, spec::BinarySubtype},
    options::ReturnDocument,
};
use palisade_middleware::{auth::Subject, clock};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    super::{
        collections::{Collections, MAX_TIME, is_duplicate},
        documents::{KeyId, Stock, bson_id, bson_time, domain_id},
        ledger_documents::{AdjustmentKeyDocument, AnswerDocument, EntryDocument},
        stock_marks,
    },
    flush, move_to_ledger, record,
};
use crate::{
    stock_ledger::{AdjustOutcome, Adjustment, Decision, NewEntry},
    store::{
        database::{Error, from_millis},
        roles::{IdempotencyKey, KEY_TTL},
    },
};

/// Product after an adjustment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Adjusted {
    pending_ledger: Vec<EntryDocument>,
}

/// Makes an adjustment without an idempotency key.
pub(super) async fn adjust(db: &Collections, adjustment: &Adjustment, actor: Subject, now: OffsetDateTime) -> Result<AdjustOutcome, Error> {
    let new = adjustment.entry(actor, now);
    let product = bson_id(adjustment.product_id());
    loop {
        if let Some(entry) = apply(db, adjustment, &new, None, doc! { "_id": product }).await? {
            flush(db, product).await;
            return Ok(AdjustOutcome::Adjusted { entry: entry.into_entry()?, replayed: false });
        }
        let Some(stock) = stock_marks::find(db, product).await? else { return Ok(AdjustOutcome::NotFound) };
        match adjustment.decide(stock.quantity) {
            // The quantity has changed in between: retry.
            Decision::Apply => {}
            Decision::InsufficientStock => return Ok(AdjustOutcome::InsufficientStock { replayed: false }),
            Decision::AboveMaximum => return Ok(AdjustOutcome::AboveMaximum),
        }
    }
}

/// Makes the adjustment of an idempotency key, once.
pub(super) async fn adjust_once(
    db: &Collections,
    adjustment: &Adjustment,
    key: IdempotencyKey,
    actor: Subject,
    now: OffsetDateTime,
) -> Result<AdjustOutcome, Error> {
    let new = adjustment.entry(actor, now);
    let first = AdjustmentKeyDocument {
        id: KeyId { subject: key.subject.to_string(), key: key.key },
        fingerprint: Binary { subtype: BinarySubtype::Generic, bytes: key.fingerprint.to_vec() },
        entry_id: bson_id(new.id),
        created_at: bson_time(now),
        answer: None,
        expires_at: bson_time(clock::after(now, KEY_TTL)),
    };
    loop {
        let Some(stored) = db.adjustment_keys.find_one(by_id(&first.id)).max_time(MAX_TIME).await? else {
            // Rejections of the request itself leave the key unused.
            let Some(stock) = stock_marks::find(db, bson_id(adjustment.product_id())).await? else { return Ok(AdjustOutcome::NotFound) };
            if adjustment.decide(stock.quantity) == Decision::AboveMaximum {
                return Ok(AdjustOutcome::AboveMaximum);
            }
            match db.adjustment_keys.insert_one(&first).await {
                Ok(_) => return decide(db, adjustment, &first, &new, false).await,
                Err(error) if is_duplicate(&error) => continue,
                Err(error) => return Err(error.into()),
            }
        };
        if stored.expires_at <= bson_time(now) {
            let mut expired = by_id(&stored.id);
            expired.insert("expiresAt", stored.expires_at);
            db.adjustment_keys.delete_one(expired).await?;
            continue;
        }
        if stored.fingerprint != first.fingerprint {
            return Ok(AdjustOutcome::KeyReused);
        }
        let created_at = from_millis(stored.created_at.timestamp_millis())?;
        let new = NewEntry { id: domain_id(stored.entry_id), created_at, ..new };
        return decide(db, adjustment, &stored, &new, true).await;
    }
}

/// Decides the adjustment of a key, or finds out how it was decided.
async fn decide(
    db: &Collections,
    adjustment: &Adjustment,
    key: &AdjustmentKeyDocument,
    new: &NewEntry,
    replayed: bool,
) -> Result<AdjustOutcome, Error> {
    let product = bson_id(adjustment.product_id());
    loop {
        let Some(stock) = stock_marks::find(db, product).await? else {
            return match answer_of(db, key).await? {
                Some(answer) => answer.into_outcome(replayed),
                None => Ok(AdjustOutcome::NotFound),
            };
        };
        if let Some(decided) = stock.pending_ledger.iter().find(|entry| entry.id == key.entry_id) {
            move_to_ledger(db, product, &stock.pending_ledger).await?;
            return AnswerDocument::of(decided).into_outcome(replayed);
        }
        if let Some(answer) = answer_of(db, key).await? {
            return answer.into_outcome(replayed);
        }
        let unchanged = doc! { "_id": product, "ledgerSequence": stock.ledger_sequence };
        let decided = match adjustment.decide(stock.quantity) {
            Decision::AboveMaximum => return Ok(AdjustOutcome::AboveMaximum),
            Decision::Apply => apply(db, adjustment, new, Some(&key.id), unchanged).await?,
            Decision::InsufficientStock => refuse(db, adjustment, new, &key.id, &stock, unchanged).await?,
        };
        if let Some(decided) = decided {
            flush(db, product).await;
            return AnswerDocument::of(&decided).into_outcome(replayed);
        }
    }
}

/// Returns the answer of a key that exists.
async fn answer_of(db: &Collections, key: &AdjustmentKeyDocument) -> Result<Option<AnswerDocument>, Error> {
    let mut same = by_id(&key.id);
    same.insert("entryId", key.entry_id);
    match db.adjustment_keys.find_one(same).max_time(MAX_TIME).await? {
        Some(key) => Ok(key.answer),
        None => Err(Error::Unavailable("the idempotency key expired during the call".into())),
    }
}

/// Makes the change of a product that matches `guard`, if its quantity allows that.
async fn apply(
    db: &Collections,
    adjustment: &Adjustment,
    new: &NewEntry,
    key: Option<&KeyId>,
    mut guard: Document,
) -> Result<Option<EntryDocument>, Error> {
    let (least, greatest) = adjustment.applicable_to();
    let delta = adjustment.delta();
    let mut bounds = doc! { "$gte": least };
    if delta > 0 {
        bounds.insert("$lte", greatest);
    }
    guard.insert("quantity", bounds);
    let quantity = Bson::from(doc! { "$add": ["$quantity", delta] });
    let now = bson_time(new.created_at);
    let mut change = doc! {
        "quantity": &quantity,
        "supply": { "$add": ["$supply", delta] },
        "version": { "$add": ["$version", 1_i64] },
        "updatedAt": now,
        "news": { "$ifNull": ["$news", now] },
    };
    change.extend(record(new, key, &Bson::from(delta), &quantity));
    let products = db.products.clone_with_type::<Adjusted>();
    let adjusted = products
        .find_one_and_update(guard, vec![doc! { "$set": change }])
        .return_document(ReturnDocument::After)
        .projection(doc! { "pendingLedger": 1 })
        .max_time(MAX_TIME)
        .await?;
    let Some(Adjusted { pending_ledger }) = adjusted else { return Ok(None) };
    let entry = pending_ledger.into_iter().find(|entry| entry.id == bson_id(new.id));
    entry.map(Some).ok_or_else(|| Error::Corrupt(format!("product {} has no entry {}", new.product_id, new.id)))
}

/// Adds a refusal to a product that matches `guard`, if too few units are available.
async fn refuse(
    db: &Collections,
    adjustment: &Adjustment,
    new: &NewEntry,
    key: &KeyId,
    stock: &Stock,
    mut guard: Document,
) -> Result<Option<EntryDocument>, Error> {
    let (least, _) = adjustment.applicable_to();
    guard.insert("quantity", doc! { "$lt": least });
    let sequence = stock.ledger_sequence.unwrap_or_default() + 1;
    let refusal =
        EntryDocument { key: Some(key.clone()), refused: true, ..EntryDocument::new(new, sequence, adjustment.delta(), stock.quantity) };
    let change = doc! { "$set": { "ledgerSequence": sequence }, "$push": { "pendingLedger": encode(&refusal)? } };
    Ok((db.stock.update_one(guard, change).await?.matched_count == 1).then_some(refusal))
}

/// Stores the answer of the key of `decided`, unless it has one.
pub(super) async fn record_answer(db: &Collections, decided: &EntryDocument) -> Result<(), Error> {
    let Some(key) = &decided.key else { return Ok(()) };
    let mut unanswered = by_id(key);
    unanswered.insert("entryId", decided.id);
    unanswered.insert("answer", doc! { "$exists": false });
    let answer = encode(&AnswerDocument::of(decided))?;
    db.adjustment_keys.update_one(unanswered, doc! { "$set": { "answer": answer } }).await?;
    Ok(())
}

impl AnswerDocument {
    /// Returns the answer of a decided adjustment.
    fn of(decided: &EntryDocument) -> Self {
        Self { entry: (!decided.refused).then(|| EntryDocument { key: None, ..decided.clone() }) }
    }

    fn into_outcome(self, replayed: bool) -> Result<AdjustOutcome, Error> {
        Ok(match self.entry {
            Some(entry) => AdjustOutcome::Adjusted { entry: entry.into_entry()?, replayed },
            None => AdjustOutcome::InsufficientStock { replayed },
        })
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Document, Error> {
    mongodb::bson::serialize_to_document(value).map_err(|error| Error::Corrupt(error.to_string()))
}

fn by_id(id: &KeyId) -> Document {
    doc! { "_id": { "subject": &id.subject, "key": &id.key } }
}
