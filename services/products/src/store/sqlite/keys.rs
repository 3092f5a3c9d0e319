//! Idempotent create: the product and the stored response are written in one transaction.

use sqlx::{Row, SqliteConnection};
use time::OffsetDateTime;

use super::products;
use crate::{
    product::Product,
    store::{Created, Error, IdempotencyKey, KEY_TTL, timestamp::to_millis},
};

pub(super) async fn create(
    db: &mut SqliteConnection,
    product: Product,
    key: Option<IdempotencyKey>,
    now: OffsetDateTime,
) -> Result<Created, Error> {
    if let Some(key) = key {
        if let Some(answer) = find_stored(db, &key, now).await? {
            return Ok(answer);
        }
        store_response(db, &key, &product, now).await?;
    }
    products::insert(db, &product).await?;
    Ok(Created::Created { product, replayed: false })
}

async fn find_stored(db: &mut SqliteConnection, key: &IdempotencyKey, now: OffsetDateTime) -> Result<Option<Created>, Error> {
    let row = sqlx::query(
        "SELECT fingerprint, product_id AS id, name, description, price_minor, quantity, category, is_active,
                1 AS version, created_at, created_at AS updated_at
         FROM idempotency_keys WHERE subject = ? AND key = ? AND expires_at > ?",
    )
    .bind(&key.subject)
    .bind(&key.key)
    .bind(to_millis(now))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<&[u8], _>("fingerprint")? != key.fingerprint {
        return Ok(Some(Created::KeyReused));
    }
    Ok(Some(Created::Created { product: products::product(&row)?, replayed: true }))
}

/// Stores the response. Replaces an expired row of the same key, see [`find_stored`].
async fn store_response(db: &mut SqliteConnection, key: &IdempotencyKey, product: &Product, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO idempotency_keys
             (subject, key, fingerprint, expires_at, product_id, name, description, price_minor, quantity, category, is_active, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&key.subject)
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(to_millis(now + KEY_TTL))
    .bind(product.id)
    .bind(&product.name)
    .bind(&product.description)
    .bind(product.price_minor)
    .bind(product.quantity)
    .bind(&product.category)
    .bind(product.is_active)
    .bind(to_millis(product.created_at))
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn delete_expired(db: &mut SqliteConnection, now: OffsetDateTime) -> Result<u64, Error> {
    let gone = sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= ?").bind(to_millis(now)).execute(db).await?;
    Ok(gone.rows_affected())
}
