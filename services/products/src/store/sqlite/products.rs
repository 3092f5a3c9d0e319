//! Catalogue queries and writes in `SQLite`.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    product::{Page, Product, Query, Sort, SortKey, ValidatedProduct, searchable},
    store::{
        Error, Removed, Updated,
        timestamp::{from_millis, to_millis},
    },
};

pub(super) async fn find(db: &mut SqliteConnection, id: Uuid) -> Result<Option<Product>, Error> {
    let row = sqlx::query("SELECT * FROM products WHERE id = ?").bind(id).fetch_optional(db).await?;
    row.as_ref().map(product).transpose()
}

pub(super) async fn list(db: &mut SqliteConnection, query: &Query) -> Result<Page, Error> {
    let rows = select(query).build().fetch_all(db).await?;
    let found = rows.iter().map(product).collect::<Result<_, _>>()?;
    Ok(query.page(found))
}

/// Selects one product more than the page of `query`, to detect a next page.
pub(super) fn select(query: &Query) -> QueryBuilder<Sqlite> {
    let filter = query.filter();
    let (column, order, behind) = match query.sort() {
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
    if let Some(text) = filter.normalized_text() {
        sql.push(" AND instr(folded, ").push_bind(text).push(") > 0");
    }
    if let Some(price) = filter.min_price_minor {
        sql.push(" AND price_minor >= ").push_bind(price);
    }
    if let Some(price) = filter.max_price_minor {
        sql.push(" AND price_minor <= ").push_bind(price);
    }
    if let Some(after) = query.after() {
        sql.push(format_args!(" AND ({column}, id) {behind} ("));
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

pub(super) async fn insert(db: &mut SqliteConnection, product: &Product) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO products (id, name, description, folded, price_minor, quantity, taken, supply, category, is_active, version, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?6, ?7, ?8, ?9, ?10, ?11)",
    )
    .bind(product.id)
    .bind(&product.name)
    .bind(&product.description)
    .bind(searchable(&product.name, &product.description))
    .bind(product.price_minor)
    .bind(product.quantity)
    .bind(&product.category)
    .bind(product.is_active)
    .bind(product.version)
    .bind(to_millis(product.created_at))
    .bind(to_millis(product.updated_at))
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn update(
    db: &mut SqliteConnection,
    id: Uuid,
    draft: &ValidatedProduct,
    expected_version: Option<i64>,
    now: OffsetDateTime,
) -> Result<Updated, Error> {
    let row = sqlx::query(
        "UPDATE products
         SET name = ?3, description = ?4, folded = ?5, price_minor = ?6, supply = supply + ?7 - quantity, quantity = ?7,
             category = ?8, is_active = ?9, version = version + 1, updated_at = ?10
         WHERE id = ?1 AND version = coalesce(?2, version)
         RETURNING *",
    )
    .bind(id)
    .bind(expected_version)
    .bind(&draft.name)
    .bind(&draft.description)
    .bind(searchable(&draft.name, &draft.description))
    .bind(draft.price_minor)
    .bind(draft.quantity)
    .bind(&draft.category)
    .bind(draft.is_active)
    .bind(to_millis(now))
    .fetch_optional(&mut *db)
    .await?;
    if let Some(row) = row {
        return product(&row).map(Updated::Updated);
    }
    let exists = sqlx::query("SELECT 1 FROM products WHERE id = ?").bind(id).fetch_optional(db).await?.is_some();
    Ok(if exists { Updated::VersionMismatch } else { Updated::NotFound })
}

pub(super) async fn remove(db: &mut SqliteConnection, id: Uuid, expected_version: Option<i64>) -> Result<Removed, Error> {
    let row = sqlx::query("SELECT version, taken FROM products WHERE id = ?").bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return Ok(Removed::NotFound) };
    if expected_version.is_some_and(|expected| row.get::<i64, _>("version") != expected) {
        return Ok(Removed::VersionMismatch);
    }
    if row.get::<i64, _>("taken") > 0 {
        return Ok(Removed::InUse);
    }
    sqlx::query("DELETE FROM products WHERE id = ?").bind(id).execute(db).await?;
    Ok(Removed::Removed)
}

pub(super) fn product(row: &SqliteRow) -> Result<Product, Error> {
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
