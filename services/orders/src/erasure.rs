//! Erasure of the data of a subject, for operators.

use palisade_middleware::auth::Subject;
use palisade_store::json_rows;
use sha2::{Digest, Sha256};

use crate::{
    archive::{self, Archive},
    order::{OrderId, Status},
    store::{self, ErasedKeys, Store},
};

/// Prefix of all pseudonyms. The database lets no other change of an owner happen.
pub const PREFIX: &str = "erased:";
/// Length of the hash in a pseudonym, bytes.
const PSEUDONYM_BYTES: usize = 16;
/// Maximum number of orders per store call.
const BATCH: u32 = 1_000;

/// Counts of erased data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Orders whose owner was replaced.
    pub orders: u64,
    /// Orders whose remover was replaced.
    pub removals: u64,
    /// History rows whose actor was replaced.
    pub history: u64,
    /// Events whose payload was changed.
    pub events: u64,
    /// Deleted idempotency keys, with their stored responses.
    pub keys: u64,
    /// Deleted stored responses of other subjects' keys.
    pub responses: u64,
    /// Changed lines of the archive.
    pub archived: u64,
}

/// Failure of an erasure. A repetition continues it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Orders in progress need their owner.
    #[error("the subject has orders in progress, {} in all ({}): complete or cancel them first", total(.0), list(.0))]
    InProgress(Vec<(Status, u64)>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

fn total(orders: &[(Status, u64)]) -> u64 {
    orders.iter().map(|(_, count)| count).sum()
}

fn list(orders: &[(Status, u64)]) -> String {
    let part = |(status, count): &(Status, u64)| format!("{count} {status}");
    orders.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// Returns a pseudonym of `subject` for one run: a hash with a random key that is then forgotten,
/// so that it cannot be computed again.
pub fn pseudonym(subject: &Subject) -> anyhow::Result<Subject> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let hash = Sha256::new().chain_update(key).chain_update(subject.as_str()).finalize();
    Ok(Subject::of_issuer(PREFIX, &json_rows::hex(&hash[..PSEUDONYM_BYTES]))?)
}

/// Replaces `subject` by `pseudonym` in the store and in the archive, and deletes its idempotency
/// keys. Changes nothing while the subject has orders in progress.
pub async fn erase(store: &dyn Store, archive: Option<&Archive>, subject: &Subject, pseudonym: &Subject) -> Result<Erased, Error> {
    refuse_orders_in_progress(store, subject).await?;
    // Until the end: no order that was read before its change may be archived after it.
    let archive = match archive {
        Some(archive) => Some(archive.lock().await?),
        None => None,
    };
    let mut erased = Erased::default();
    loop {
        let batch = store.erase_keys(subject.clone(), BATCH).await?;
        if batch == ErasedKeys::default() {
            break;
        }
        erased.keys += batch.keys;
        erased.responses += batch.responses;
    }
    let mut after = OrderId::NIL;
    loop {
        let batch = store.erase_orders(subject.clone(), pseudonym.clone(), after, BATCH).await?;
        erased.orders += batch.orders;
        erased.removals += batch.removals;
        erased.history += batch.history;
        erased.events += batch.events;
        let Some(last) = batch.last else { break };
        after = last;
    }
    if let Some(archive) = archive {
        erased.archived = archive.replace_subject(subject.as_str(), pseudonym.as_str()).await?;
    }
    // Orders that were accepted meanwhile.
    refuse_orders_in_progress(store, subject).await?;
    Ok(erased)
}

async fn refuse_orders_in_progress(store: &dyn Store, subject: &Subject) -> Result<(), Error> {
    let unsettled = store.unsettled_orders(subject.clone()).await?;
    if unsettled.is_empty() { Ok(()) } else { Err(Error::InProgress(unsettled)) }
}
