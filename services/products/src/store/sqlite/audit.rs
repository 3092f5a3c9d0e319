//! Migration, readiness and statistics in SQLite, and the stock audit within one snapshot.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use palisade_store::migration;
use sqlx::{Connection, Row, SqliteConnection, migrate::Migrator};
use time::OffsetDateTime;
use uuid::Uuid;

use super::SqliteStore;
use crate::store::{
    database::{Error, from_millis, to_millis},
    roles::{Audit, Imbalance, Maintenance, Quarantined, Stats},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

#[async_trait]
impl Maintenance for SqliteStore {
    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        let mut db = self.readers.acquire().await?;
        audit(&mut *db.begin().await?, now).await
    }

    async fn migrate(&self) -> Result<(), Error> {
        Ok(migration::apply_pending(&mut *self.writer.acquire().await?, &MIGRATIONS).await?)
    }

    async fn take_over(&self, _: OffsetDateTime) -> Result<(), Error> {
        if self.owner.is_only_owner() {
            sqlx::query("UPDATE relay SET leased_until = 0").execute(&mut *self.writer.acquire().await?).await?;
        }
        Ok(())
    }

    async fn stats(&self, now: OffsetDateTime, settled_before: OffsetDateTime) -> Result<Stats, Error> {
        let count = sqlx::query_as(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM idempotency_keys WHERE expires_at <= ?1
                        UNION ALL SELECT 1 FROM adjustment_keys WHERE expires_at <= ?1 LIMIT 10000)),
                    (SELECT count(*) FROM (SELECT 1 FROM reservations
                        WHERE state IN ('REFUSED', 'RELEASED', 'EXPIRED') AND coalesce(settled_at, expires_at) <= ?2 LIMIT 10000)),
                    (SELECT count(*) FROM (SELECT 1 FROM quarantined_reservations LIMIT 10000))",
        );
        let count = count.bind(to_millis(now)).bind(to_millis(settled_before));
        let (keys, reservations, quarantined): (i64, i64, i64) = count.fetch_one(&mut *self.readers.acquire().await?).await?;
        Ok(Stats {
            overdue_keys: keys.unsigned_abs(),
            overdue_reservations: reservations.unsigned_abs(),
            quarantined: quarantined.unsigned_abs(),
        })
    }

    async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, Error> {
        let select = "SELECT reservation_id, reason, since FROM quarantined_reservations ORDER BY since, reservation_id LIMIT ?";
        let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(select).bind(limit).fetch_all(&mut *self.readers.acquire().await?).await?;
        let entry = |(reservation_id, reason, since)| Ok(Quarantined { reservation_id, reason, since: from_millis(since)? });
        rows.into_iter().map(entry).collect()
    }

    async fn end_quarantine(&self, reservation_id: Uuid) -> Result<bool, Error> {
        let delete = sqlx::query("DELETE FROM quarantined_reservations WHERE reservation_id = ?").bind(reservation_id);
        Ok(delete.execute(&mut *self.writer.acquire().await?).await?.rows_affected() == 1)
    }

    /// The file has no clock of its own.
    async fn ping(&self) -> Result<Option<OffsetDateTime>, Error> {
        if self.write_probe.is_due() {
            sqlx::query("INSERT OR REPLACE INTO write_probe (only_one, at) VALUES (1, unixepoch() * 1000)")
                .execute(&mut *self.writer.acquire().await?)
                .await?;
            self.write_probe.succeeded();
        } else {
            sqlx::query("SELECT 1").execute(&mut *self.readers.acquire().await?).await?;
        }
        Ok(None)
    }
}

async fn audit(db: &mut SqliteConnection, now: OffsetDateTime) -> Result<Audit, Error> {
    let mut audit = totals(db, now).await?;
    // Full join: reserved units of a missing product are a violation too.
    let mut rows = sqlx::query(
        "WITH reserved AS (
             SELECT product_id, sum(quantity) AS units FROM reservation_lines
             WHERE reservation_id IN (SELECT id FROM reservations WHERE state IN ('HELD', 'CONFIRMED'))
             GROUP BY product_id
         ), ledgers AS (
             SELECT product_id, sum(delta) AS units FROM stock_adjustments GROUP BY product_id
         )
         SELECT coalesce(products.id, reserved.product_id) AS id, coalesce(supply, 0) AS supply, coalesce(quantity, 0) AS quantity,
                coalesce(taken, 0) AS taken, coalesce(reserved.units, 0) AS reserved, coalesce(ledgers.units, 0) AS ledger
         FROM products FULL JOIN reserved ON reserved.product_id = products.id LEFT JOIN ledgers ON ledgers.product_id = products.id",
    )
    .fetch(db);
    while let Some(row) = rows.try_next().await? {
        let quantity: i64 = row.try_get("quantity")?;
        audit.products_checked += 1;
        audit.available_units += quantity;
        audit.out_of_stock_products += u64::from(quantity == 0);
        let balance = Imbalance {
            product_id: row.try_get("id")?,
            supply: row.try_get("supply")?,
            quantity,
            taken: row.try_get("taken")?,
            reserved: row.try_get("reserved")?,
            ledger: row.try_get("ledger")?,
        };
        audit.violations.extend(balance.check());
    }
    Ok(audit)
}

async fn totals(db: &mut SqliteConnection, now: OffsetDateTime) -> Result<Audit, Error> {
    let row = sqlx::query(
        "SELECT coalesce(sum(quantity) FILTER (WHERE state = 'HELD'), 0) AS held,
                coalesce(sum(quantity) FILTER (WHERE state = 'CONFIRMED'), 0) AS confirmed,
                (SELECT count(*) FROM reservations WHERE state = 'HELD' AND expires_at <= ?) AS overdue
         FROM reservations JOIN reservation_lines ON reservation_id = id WHERE state IN ('HELD', 'CONFIRMED')",
    )
    .bind(to_millis(now))
    .fetch_one(db)
    .await?;
    Ok(Audit {
        held_units: row.try_get("held")?,
        confirmed_units: row.try_get("confirmed")?,
        overdue_holds: row.try_get("overdue")?,
        ..Audit::default()
    })
}
