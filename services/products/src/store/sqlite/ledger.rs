//! Stock ledger in SQLite. An entry is written in the transaction that changes the supply.

use async_trait::async_trait;
use palisade_middleware::{auth::Subject, clock};
use palisade_store::json_rows::{self, hex};
use serde::Serialize;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{SqliteStore, begin, reserve_batch::encode};
use crate::{
    stock_ledger::{AdjustOutcome, Adjustment, Decision, Entry, Fold, Foldable, Kind, LedgerPage, LedgerQuery, NewEntry},
    store::{
        database::{Error, from_millis, readable, to_millis},
        ledger_metrics,
        ledger_role::LedgerStore,
        roles::{IdempotencyKey, KEY_TTL},
    },
};

/// `?1` is a JSON array of [`EntryRow`]s with distinct products.
const INSERT: &str = "
    INSERT INTO stock_adjustments (product_id, sequence, id, kind, delta, reason, quantity_after, actor, order_id, created_at)
    SELECT products.id, 1 + coalesce((SELECT max(sequence) FROM stock_adjustments WHERE product_id = products.id), 0),
           unhex(value ->> 'id'), value ->> 'kind', value ->> 'delta', value ->> 'reason', quantity, value ->> 'actor',
           unhex(value ->> 'order_id'), value ->> 'created_at'
    FROM json_each(?1) JOIN products ON products.id = unhex(value ->> 'product_id')";

#[derive(Serialize)]
struct EntryRow<'a> {
    product_id: String,
    id: String,
    kind: &'static str,
    delta: i64,
    reason: &'a str,
    actor: Option<&'a str>,
    order_id: Option<String>,
    created_at: i64,
}

#[async_trait]
impl LedgerStore for SqliteStore {
    async fn adjust(
        &self,
        adjustment: Adjustment,
        key: Option<IdempotencyKey>,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<AdjustOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        if let Some(key) = &key
            && let Some(stored) = find_stored(&mut transaction, key, now).await?
        {
            return Ok(stored);
        }
        let select = sqlx::query_scalar("SELECT quantity FROM products WHERE id = ?").bind(adjustment.product_id());
        let Some(quantity) = select.fetch_optional(&mut *transaction).await? else { return Ok(AdjustOutcome::NotFound) };
        let new = adjustment.entry(actor, now);
        let outcome = match adjustment.decide(quantity) {
            Decision::AboveMaximum => return Ok(AdjustOutcome::AboveMaximum),
            Decision::InsufficientStock => AdjustOutcome::InsufficientStock { replayed: false },
            Decision::Apply => AdjustOutcome::Adjusted { entry: apply(&mut transaction, &adjustment, &new).await?, replayed: false },
        };
        if let Some(key) = key {
            store_response(&mut transaction, &key, &adjustment, &outcome, now).await?;
        }
        transaction.commit().await?;
        Ok(outcome)
    }

    async fn ledger(&self, query: LedgerQuery) -> Result<Option<LedgerPage>, Error> {
        let mut db = self.readers.acquire().await?;
        let rows = sqlx::query(
            "SELECT stock_adjustments.* FROM stock_adjustments JOIN products ON products.id = product_id
             WHERE product_id = ? AND sequence < ? ORDER BY sequence DESC LIMIT ?",
        );
        let rows = rows.bind(query.product_id()).bind(query.before()).bind(query.rows()).fetch_all(&mut *db).await?;
        if rows.is_empty() {
            let exists = sqlx::query("SELECT 1 FROM products WHERE id = ?").bind(query.product_id());
            if exists.fetch_optional(&mut *db).await?.is_none() {
                return Ok(None);
            }
        }
        let rows = rows.iter().map(|row| Ok((row.try_get("sequence")?, readable("stock_adjustments", entry(row)))));
        Ok(Some(query.page(rows.collect::<Result<_, Error>>()?)))
    }

    /// Triggers record the changes of the previous release.
    async fn reconcile_ledger(&self, _: Option<Uuid>, _: u32) -> Result<Option<Uuid>, Error> {
        Ok(None)
    }

    async fn fold_ledger(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let select = sqlx::query_scalar(
            "SELECT DISTINCT product_id FROM
                 (SELECT product_id FROM stock_adjustments WHERE kind <> 'opening' AND created_at < ? ORDER BY created_at LIMIT ?)",
        );
        let products: Vec<Uuid> = select.bind(to_millis(before)).bind(limit).fetch_all(&mut *transaction).await?;
        let mut folded = 0;
        for product in products {
            let left = i64::from(limit).saturating_sub_unsigned(folded);
            if left <= 0 {
                break;
            }
            folded += fold(&mut transaction, product, before, left).await?;
        }
        transaction.commit().await?;
        Ok(folded)
    }
}

/// Records changes of the supply by so many units, of distinct products, after they were made.
pub(super) async fn record(db: &mut SqliteConnection, entries: &[(NewEntry, i64)]) -> Result<(), Error> {
    let rows: Vec<EntryRow<'_>> = entries.iter().map(|(entry, delta)| EntryRow::new(entry, *delta)).collect();
    json_rows::execute(db, INSERT, &encode(&rows)?).await?;
    for (entry, _) in entries {
        ledger_metrics::record(entry.kind, 1);
    }
    Ok(())
}

/// Changes the stock and returns the entry.
async fn apply(db: &mut SqliteConnection, adjustment: &Adjustment, new: &NewEntry) -> Result<Entry, Error> {
    sqlx::query(
        "UPDATE products
         SET quantity = quantity + ?2, supply = supply + ?2, booked = booked + ?2, version = version + 1, updated_at = ?3
         WHERE id = ?1",
    )
    .bind(new.product_id)
    .bind(adjustment.delta())
    .bind(to_millis(new.created_at))
    .execute(&mut *db)
    .await?;
    record(db, &[(new.clone(), adjustment.delta())]).await?;
    let select = sqlx::query("SELECT * FROM stock_adjustments WHERE product_id = ? ORDER BY sequence DESC LIMIT 1");
    entry(&select.bind(new.product_id).fetch_one(db).await?)
}

/// Replaces up to `limit` old entries of a product by one. Returns their number.
async fn fold(db: &mut SqliteConnection, product: Uuid, before: OffsetDateTime, limit: i64) -> Result<u64, Error> {
    let select =
        sqlx::query("SELECT sequence, kind, delta, created_at FROM stock_adjustments WHERE product_id = ? ORDER BY sequence LIMIT ?");
    let rows = select.bind(product).bind(limit.max(2)).fetch_all(&mut *db).await?;
    let Some(fold) = Fold::of(&rows.iter().map(foldable).collect::<Result<Vec<_>, _>>()?, before) else { return Ok(0) };
    let delete = sqlx::query("DELETE FROM stock_adjustments WHERE product_id = ? AND sequence < ?");
    delete.bind(product).bind(fold.through.sequence).execute(&mut *db).await?;
    sqlx::query(
        "UPDATE stock_adjustments SET kind = 'opening', delta = ?3, reason = '', actor = NULL, order_id = NULL
         WHERE product_id = ?1 AND sequence = ?2",
    )
    .bind(product)
    .bind(fold.through.sequence)
    .bind(fold.units)
    .execute(db)
    .await?;
    Ok(fold.entries)
}

async fn find_stored(db: &mut SqliteConnection, key: &IdempotencyKey, now: OffsetDateTime) -> Result<Option<AdjustOutcome>, Error> {
    let select = sqlx::query("SELECT * FROM adjustment_keys WHERE subject = ? AND key = ? AND expires_at > ?");
    let row = select.bind(key.subject.as_str()).bind(&key.key).bind(to_millis(now)).fetch_optional(db).await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<&[u8], _>("fingerprint")? != key.fingerprint {
        return Ok(Some(AdjustOutcome::KeyReused));
    }
    let id: Option<Uuid> = row.try_get("id")?;
    Ok(Some(match id {
        Some(_) => AdjustOutcome::Adjusted { entry: entry(&row)?, replayed: true },
        None => AdjustOutcome::InsufficientStock { replayed: true },
    }))
}

/// Stores the response. Replaces an expired row of the same key, see [`find_stored`].
async fn store_response(
    db: &mut SqliteConnection,
    key: &IdempotencyKey,
    adjustment: &Adjustment,
    outcome: &AdjustOutcome,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let made = match outcome {
        AdjustOutcome::Adjusted { entry, .. } => Some(entry),
        _ => None,
    };
    sqlx::query(
        "INSERT OR REPLACE INTO adjustment_keys
             (subject, key, fingerprint, expires_at, product_id, sequence, id, kind, delta, reason, quantity_after, actor, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.subject.as_str())
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(to_millis(clock::after(now, KEY_TTL)))
    .bind(adjustment.product_id())
    .bind(made.map_or(0, |entry| entry.sequence))
    .bind(made.map(|entry| entry.id))
    .bind(Kind::Adjustment.as_str())
    .bind(adjustment.delta())
    .bind(adjustment.reason())
    .bind(made.map_or(0, |entry| entry.quantity_after))
    .bind(made.and_then(|entry| entry.actor.as_ref()).map(Subject::as_str))
    .bind(to_millis(made.map_or(now, |entry| entry.created_at)))
    .execute(db)
    .await?;
    Ok(())
}

impl<'a> EntryRow<'a> {
    fn new(entry: &'a NewEntry, delta: i64) -> Self {
        Self {
            product_id: hex(entry.product_id),
            id: hex(entry.id),
            kind: entry.kind.as_str(),
            delta,
            reason: &entry.reason,
            actor: entry.actor.as_ref().map(Subject::as_str),
            order_id: entry.order_id.map(hex),
            created_at: to_millis(entry.created_at),
        }
    }
}

fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    let Foldable { sequence, kind, delta, created_at } = foldable(row)?;
    let actor: Option<&str> = row.try_get("actor")?;
    Ok(Entry {
        id: row.try_get("id")?,
        product_id: row.try_get("product_id")?,
        sequence,
        kind,
        delta,
        reason: row.try_get("reason")?,
        quantity_after: row.try_get("quantity_after")?,
        actor: actor.map(Subject::parse).transpose().map_err(|error| Error::Corrupt(format!("actor {error}")))?,
        order_id: row.try_get("order_id")?,
        created_at,
    })
}

fn foldable(row: &SqliteRow) -> Result<Foldable, Error> {
    let kind: &str = row.try_get("kind")?;
    Ok(Foldable {
        sequence: row.try_get("sequence")?,
        kind: Kind::parse(kind).ok_or_else(|| Error::Corrupt(format!("unknown kind {kind}")))?,
        delta: row.try_get("delta")?,
        created_at: from_millis(row.try_get("created_at")?)?,
    })
}
