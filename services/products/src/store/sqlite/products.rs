//! Catalogue and idempotent creation in SQLite. A product and its stored response are written in
//! one transaction.

use async_trait::async_trait;
use palisade_middleware::{auth::Subject, clock, preconditions::VersionPreconditions};
use sqlx::{Connection, QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{SqliteStore, begin, history, ledger, search::Candidates};
use crate::{
    product::{Input, Page, Product, Query, Sort, SortKey, ValidatedPatch, ValidatedProduct, legacy_searchable, searchable},
    stock_ledger::{Kind, NewEntry},
    store::{
        database::{Error, from_millis, readable, to_millis},
        roles::{CreateOutcome, IdempotencyKey, KEY_TTL, ProductStore, RemoveOutcome, UpdateOutcome},
    },
};

#[async_trait]
impl ProductStore for SqliteStore {
    async fn create(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        key: Option<IdempotencyKey>,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<CreateOutcome, Error> {
        let product = draft.into_product(id, now);
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        if let Some(key) = key {
            if let Some(stored) = find_stored(&mut transaction, &key, now).await? {
                return Ok(stored);
            }
            store_response(&mut transaction, &key, &product, now).await?;
        }
        insert(&mut transaction, &product).await?;
        history::add_actor(&mut transaction, id, product.version, &actor).await?;
        let opening = NewEntry::new(id, Kind::Opening, now).by(actor);
        ledger::record(&mut transaction, &[(opening, product.quantity)]).await?;
        transaction.commit().await?;
        Ok(CreateOutcome::Created { product, replayed: false })
    }

    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> {
        let find = sqlx::query("SELECT * FROM products WHERE id = ?").bind(id);
        find.fetch_optional(&mut *self.readers.acquire().await?).await?.as_ref().map(product).transpose()
    }

    async fn list(&self, query: Query) -> Result<Page, Error> {
        let mut db = self.readers.acquire().await?;
        let Some(text) = query.filter().normalized_text() else {
            let rows = select(&query, None).build().fetch_all(&mut *db).await?;
            return Ok(query.page(rows.iter().map(|row| readable("products", product(row))).collect()));
        };
        // One snapshot for the index and the products.
        let mut transaction = db.begin().await?;
        let candidates = Candidates::find(&mut transaction, text).await?;
        let rows = select(&query, Some(&candidates)).build().fetch_all(&mut *transaction).await?;
        Ok(query.page(rows.iter().map(|row| readable("products", product(row))).collect()))
    }

    async fn update(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        preconditions: VersionPreconditions,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<UpdateOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let Some((current, _)) = find_with_details(&mut transaction, id).await? else { return Ok(UpdateOutcome::NotFound) };
        if !preconditions.allow_write(&current.version) {
            return Ok(UpdateOutcome::VersionMismatch);
        }
        let updated = replace(&mut transaction, &current, &draft, actor, now).await?;
        transaction.commit().await?;
        Ok(UpdateOutcome::Updated(updated))
    }

    async fn patch(
        &self,
        id: Uuid,
        patch: ValidatedPatch,
        preconditions: VersionPreconditions,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<UpdateOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let found = find_with_details(&mut transaction, id).await?;
        let Some((current, details_version)) = found else { return Ok(UpdateOutcome::NotFound) };
        if !patch.is_allowed(&preconditions, current.version, details_version) {
            return Ok(UpdateOutcome::VersionMismatch);
        }
        if patch.is_empty() {
            return Ok(UpdateOutcome::Updated(current));
        }
        let updated = replace(&mut transaction, &current, &patch.apply(&current), actor, now).await?;
        transaction.commit().await?;
        Ok(UpdateOutcome::Updated(updated))
    }

    async fn remove(&self, id: Uuid, preconditions: VersionPreconditions, _: OffsetDateTime) -> Result<RemoveOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let select = sqlx::query_as("SELECT version, taken FROM products WHERE id = ?").bind(id);
        let row: Option<(i64, i64)> = select.fetch_optional(&mut *transaction).await?;
        let Some((version, taken)) = row else { return Ok(RemoveOutcome::NotFound) };
        if !preconditions.allow_write(&version) {
            return Ok(RemoveOutcome::VersionMismatch);
        }
        if taken > 0 {
            return Ok(RemoveOutcome::InUse);
        }
        sqlx::query("DELETE FROM products WHERE id = ?").bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(RemoveOutcome::Removed)
    }

    async fn refresh_search(&self, _: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error> {
        self.fold_some(limit).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        let mut deleted = 0;
        for delete in [
            "DELETE FROM idempotency_keys WHERE (subject, key) IN
                 (SELECT subject, key FROM idempotency_keys WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
            "DELETE FROM adjustment_keys WHERE (subject, key) IN
                 (SELECT subject, key FROM adjustment_keys WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        ] {
            let left = i64::from(limit).saturating_sub_unsigned(deleted);
            let delete = sqlx::query(delete).bind(to_millis(now)).bind(left);
            deleted += delete.execute(&mut *self.writer.acquire().await?).await?.rows_affected();
        }
        Ok(deleted)
    }
}

/// Selects one product more than the page of `query`, to detect a next page.
/// `candidates` replace the text filter.
pub(super) fn select(query: &Query, candidates: Option<&Candidates>) -> QueryBuilder<Sqlite> {
    let filter = query.filter();
    let (column, order, comparison) = match query.sort() {
        Sort::Newest => ("created_at", "DESC", "<"),
        Sort::Oldest => ("created_at", "ASC", ">"),
        Sort::PriceAsc => ("price_minor", "ASC", ">"),
        Sort::PriceDesc => ("price_minor", "DESC", "<"),
        Sort::NameAsc => ("name", "ASC", ">"),
        Sort::NameDesc => ("name", "DESC", "<"),
    };
    let mut sql = QueryBuilder::new("SELECT * FROM products WHERE TRUE");
    if let Some(category) = &filter.category {
        sql.push(" AND category = ").push_bind(category.clone());
    }
    if let Some(is_active) = filter.is_active {
        sql.push(" AND is_active = ").push_bind(is_active);
    }
    match candidates {
        None => {}
        Some(Candidates::Listed(ids)) => {
            let ids = serde_json::json!(ids).to_string();
            sql.push(" AND id IN (SELECT product_id FROM search_ids WHERE id IN (SELECT value FROM json_each(").push_bind(ids).push(")))");
        }
        Some(Candidates::Many(text)) => {
            sql.push(" AND instr(coalesce(search_text, folded), ").push_bind(text.clone()).push(") > 0");
        }
    }
    if let Some(price) = filter.min_price_minor {
        sql.push(" AND price_minor >= ").push_bind(price);
    }
    if let Some(price) = filter.max_price_minor {
        sql.push(" AND price_minor <= ").push_bind(price);
    }
    if let Some(after) = query.after() {
        sql.push(format_args!(" AND ({column}, id) {comparison} ("));
        match &after.key {
            SortKey::CreatedAt(at) => sql.push_bind(to_millis(*at)),
            SortKey::PriceMinor(price) => sql.push_bind(*price),
            SortKey::Name(name) => sql.push_bind(name.clone()),
        };
        sql.push(", ").push_bind(after.id).push(")");
    }
    sql.push(format_args!(" ORDER BY {column} {order}, id {order} LIMIT {}", query.limit() + 1));
    sql
}

/// Returns the product and its version at the last change of another field than the quantity.
async fn find_with_details(db: &mut SqliteConnection, id: Uuid) -> Result<Option<(Product, Option<i64>)>, Error> {
    let row = sqlx::query("SELECT * FROM products WHERE id = ?").bind(id).fetch_optional(db).await?;
    row.map(|row| Ok((product(&row)?, row.try_get("details_version")?))).transpose()
}

/// Replaces the fields of the product `current` and records the difference in its quantity.
async fn replace(
    db: &mut SqliteConnection,
    current: &Product,
    input: &Input,
    actor: Subject,
    now: OffsetDateTime,
) -> Result<Product, Error> {
    let row = sqlx::query(
        "UPDATE products
         SET name = ?2, description = ?3, folded = ?4, price_minor = ?5, supply = supply + ?6 - quantity,
             booked = booked + ?6 - quantity, quantity = ?6, category = ?7, is_active = ?8, version = version + 1,
             updated_at = ?9, search_text = ?10
         WHERE id = ?1
         RETURNING *",
    )
    .bind(current.id)
    .bind(&input.name)
    .bind(&input.description)
    .bind(legacy_searchable(&input.name, &input.description))
    .bind(input.price_minor)
    .bind(input.quantity)
    .bind(&input.category)
    .bind(input.is_active)
    .bind(to_millis(now))
    .bind(searchable(&input.name, &input.description))
    .fetch_one(&mut *db)
    .await?;
    let updated = product(&row)?;
    history::add_actor(db, updated.id, updated.version, &actor).await?;
    let delta = input.quantity - current.quantity;
    if delta != 0 {
        ledger::record(db, &[(NewEntry::new(current.id, Kind::Set, now).by(actor), delta)]).await?;
    }
    Ok(updated)
}

async fn insert(db: &mut SqliteConnection, product: &Product) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO products (id, name, description, folded, price_minor, quantity, taken, supply, booked, category, is_active, version,
             created_at, updated_at, search_text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?6, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .bind(product.id)
    .bind(&product.name)
    .bind(&product.description)
    .bind(legacy_searchable(&product.name, &product.description))
    .bind(product.price_minor)
    .bind(product.quantity)
    .bind(&product.category)
    .bind(product.is_active)
    .bind(product.version)
    .bind(to_millis(product.created_at))
    .bind(to_millis(product.updated_at))
    .bind(searchable(&product.name, &product.description))
    .execute(db)
    .await?;
    Ok(())
}

async fn find_stored(db: &mut SqliteConnection, key: &IdempotencyKey, now: OffsetDateTime) -> Result<Option<CreateOutcome>, Error> {
    let row = sqlx::query(
        "SELECT fingerprint, product_id AS id, name, description, price_minor, quantity, category, is_active,
                1 AS version, created_at, created_at AS updated_at
         FROM idempotency_keys WHERE subject = ? AND key = ? AND expires_at > ?",
    )
    .bind(key.subject.as_str())
    .bind(&key.key)
    .bind(to_millis(now))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<&[u8], _>("fingerprint")? != key.fingerprint {
        return Ok(Some(CreateOutcome::KeyReused));
    }
    Ok(Some(CreateOutcome::Created { product: product(&row)?, replayed: true }))
}

/// Stores the response. Replaces an expired row of the same key, see [`find_stored`].
async fn store_response(db: &mut SqliteConnection, key: &IdempotencyKey, product: &Product, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO idempotency_keys
             (subject, key, fingerprint, expires_at, product_id, name, description, price_minor, quantity, category, is_active, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.subject.as_str())
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(to_millis(clock::after(now, KEY_TTL)))
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

fn product(row: &SqliteRow) -> Result<Product, Error> {
    Ok(Product {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        price_minor: row.try_get("price_minor")?,
        quantity: row.try_get("quantity")?,
        category: row.try_get("category")?,
        is_active: row.try_get("is_active")?,
        version: row.try_get("version")?,
        created_at: from_millis(row.try_get("created_at")?)?,
        updated_at: from_millis(row.try_get("updated_at")?)?,
    })
}
