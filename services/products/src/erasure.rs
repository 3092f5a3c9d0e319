//! Erasure of the data of a subject, for operators.

use palisade_middleware::auth::Subject;

use crate::store::{Error, Store};

/// Maximum number of keys, products or ledger entries per store call.
const BATCH: u32 = 1_000;

/// Counts of erased data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Deleted idempotency keys, with their stored responses.
    pub keys: u64,
    /// Entries of the stock ledger whose author was replaced.
    pub entries: u64,
    /// Entries of the histories of products whose actor was replaced.
    pub history: u64,
}

/// Deletes the idempotency keys of `subject`, and replaces it by `pseudonym` in the stock ledger
/// and in the histories of the products.
pub async fn erase(store: &dyn Store, subject: &Subject, pseudonym: &Subject) -> Result<Erased, Error> {
    // First, because an entry that a crash left in its product is not in the ledger yet.
    let mut after = None;
    loop {
        after = store.reconcile_ledger(after, BATCH).await?;
        if after.is_none() {
            break;
        }
    }
    Ok(Erased {
        keys: repeat(|| store.erase_keys(subject.clone(), BATCH)).await?,
        entries: repeat(|| store.erase_authors(subject.clone(), pseudonym.clone(), BATCH)).await?,
        history: repeat(|| store.erase_actors(subject.clone(), pseudonym.clone(), BATCH)).await?,
    })
}

/// Repeats a batch until it changes nothing. Returns the sum of the changes.
async fn repeat<F: Future<Output = Result<u64, Error>>>(batch: impl Fn() -> F) -> Result<u64, Error> {
    let mut all = 0;
    loop {
        match batch().await? {
            0 => return Ok(all),
            changes => all += changes,
        }
    }
}
