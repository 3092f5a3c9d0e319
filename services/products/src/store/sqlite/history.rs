//! Histories of the products in SQLite. Triggers record each change, also by a program of the
//! previous release, and keep the latest ones. This release adds the actor.

use async_trait::async_trait;
use palisade_middleware::auth::Subject;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::SqliteStore;
use crate::{
    product::{Change, MAX_HISTORY},
    store::{
        database::{Error, from_millis, readable},
        history_documents::{FieldsDocument, parse_actor},
        history_role::HistoryStore,
    },
};

#[async_trait]
impl HistoryStore for SqliteStore {
    async fn history(&self, id: Uuid) -> Result<Option<Vec<Change>>, Error> {
        let mut db = self.readers.acquire().await?;
        // One snapshot for the product and its changes.
        let mut transaction = db.begin().await?;
        let exists = sqlx::query("SELECT 1 FROM products WHERE id = ?").bind(id);
        if exists.fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(None);
        }
        let select = sqlx::query("SELECT * FROM product_changes WHERE product_id = ? ORDER BY version DESC LIMIT ?");
        let rows = select.bind(id).bind(MAX_HISTORY).fetch_all(&mut *transaction).await?;
        Ok(Some(rows.iter().filter_map(|row| readable("product_changes", change(row))).collect()))
    }
}

/// Adds the actor to the change that led to this version of a product, unless it changed no
/// catalogue field.
pub(super) async fn add_actor(db: &mut SqliteConnection, product: Uuid, version: i64, actor: &Subject) -> Result<(), Error> {
    let update = sqlx::query("UPDATE product_changes SET actor = ?3 WHERE product_id = ?1 AND version = ?2");
    update.bind(product).bind(version).bind(actor.as_str()).execute(db).await?;
    Ok(())
}

fn change(row: &SqliteRow) -> Result<Change, Error> {
    let fields: FieldsDocument =
        serde_json::from_str(row.try_get("changes")?).map_err(|error| Error::Corrupt(format!("changed fields: {error}")))?;
    Ok(Change {
        version: row.try_get("version")?,
        fields: fields.into(),
        actor: parse_actor(row.try_get("actor")?)?,
        at: from_millis(row.try_get("created_at")?)?,
    })
}
