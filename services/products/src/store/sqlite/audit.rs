//! Stock audit in SQLite, within one snapshot.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::{Connection, Row, SqliteConnection};
use time::OffsetDateTime;

use super::SqliteStore;
use crate::store::{
    database::{Error, to_millis},
    roles::{Audit, Imbalance, Maintenance},
};

#[async_trait]
impl Maintenance for SqliteStore {
    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        let mut db = self.readers.acquire().await?;
        audit(&mut *db.begin().await?, now).await
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.readers.acquire().await?).await?;
        Ok(())
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
         )
         SELECT coalesce(products.id, reserved.product_id) AS id, coalesce(supply, 0) AS supply, coalesce(quantity, 0) AS quantity,
                coalesce(taken, 0) AS taken, coalesce(units, 0) AS reserved
         FROM products FULL JOIN reserved ON reserved.product_id = products.id",
    )
    .fetch(db);
    while let Some(row) = rows.try_next().await? {
        let quantity: i64 = row.try_get("quantity")?;
        audit.products_checked += 1;
        audit.available_units += quantity;
        audit.out_of_stock_products += u64::from(quantity == 0);
        let imbalance =
            Imbalance::check(row.try_get("id")?, row.try_get("supply")?, quantity, row.try_get("taken")?, row.try_get("reserved")?);
        audit.violations.extend(imbalance);
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
