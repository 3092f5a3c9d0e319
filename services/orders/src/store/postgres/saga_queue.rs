//! Saga queue in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::clock;
use sqlx::{Connection as _, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    PostgresStore,
    row::{self, columns, lines, saga_columns},
};
use crate::{
    order::OrderId,
    saga::{RevisionEnd, Transition},
    store::{
        batches,
        database::{Error, corrupt, readable},
        orders::{Claimed, StoredResponse},
        saga_queue::{QuarantinedOrder, SagaQueue, StuckOrder, TransitionResult},
    },
};

/// Condition of orders that can be claimed at `$1`.
macro_rules! due {
    () => {
        "due_at <= $1 AND NOT EXISTS (SELECT FROM quarantined_orders WHERE order_id = orders.id) "
    };
}

/// Claims the orders that `$selection` selects. SKIP LOCKED: replicas that claim concurrently skip
/// each other's rows instead of waiting for them.
macro_rules! claim {
    ($selection:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (SELECT id FROM orders WHERE ",
            due!(),
            $selection,
            " FOR UPDATE SKIP LOCKED), \
     o AS (UPDATE orders SET due_at = $2, fence = fence + 1, attempts = attempts + 1 FROM due WHERE orders.id = due.id RETURNING orders.*) SELECT ",
            columns!(),
            saga_columns!(),
            " FROM o",
            lines!(),
        )
    };
}

/// Up to `$3` orders, longest due first.
const CLAIM: &str = claim!("ORDER BY due_at LIMIT $3");
/// The order `$3`.
const CLAIM_ONE: &str = claim!("AND id = $3");
const SELECT_DUE: &str = concat!("SELECT id FROM orders WHERE ", due!(), "ORDER BY due_at LIMIT $2");

impl PostgresStore {
    /// Claims one by one, because the claim of one order violates a constraint: its row was changed
    /// by something else than this service. That order goes into quarantine.
    async fn claim_one_by_one(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        let select = sqlx::query_scalar(SELECT_DUE).bind(now).bind(i64::from(limit));
        let due: Vec<Uuid> = select.fetch_all(&mut *self.pool.acquire().await?).await?;
        let mut claimed = Vec::with_capacity(due.len());
        for id in due {
            let claim = || async {
                let claim = sqlx::query(CLAIM_ONE).bind(now).bind(clock::after(now, lease)).bind(id);
                Ok(claim.fetch_all(&mut *self.pool.acquire().await?).await?)
            };
            match self.with_retries(claim).await {
                Ok(rows) => claimed.extend(self.readable(rows, now).await?),
                Err(error @ Error::Corrupt(_)) => self.quarantine(id, &error, now).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(claimed)
    }

    /// Decodes claimed rows one by one. An unreadable one goes into quarantine.
    async fn readable(&self, rows: Vec<PgRow>, now: OffsetDateTime) -> Result<Vec<Claimed>, Error> {
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            match row::claimed(&row) {
                Ok(order) => claimed.push(order),
                Err(error) => self.quarantine(row.try_get("id")?, &error, now).await?,
            }
        }
        Ok(claimed)
    }

    pub(super) async fn quarantine(&self, id: Uuid, error: &Error, now: OffsetDateTime) -> Result<(), Error> {
        tracing::error!(order_id = %id, error = error as &dyn std::error::Error, "unreadable order put into quarantine");
        sqlx::query("INSERT INTO quarantined_orders (order_id, reason, since) VALUES ($1, $2, $3) ON CONFLICT (order_id) DO NOTHING")
            .bind(id)
            .bind(error.to_string().replace('\0', "\u{fffd}"))
            .bind(now)
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl SagaQueue for PostgresStore {
    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        let claim = || async {
            let claim = sqlx::query(CLAIM).bind(now).bind(clock::after(now, lease)).bind(i64::from(limit));
            let mut connection = self.pool.acquire().await?;
            let claimed = claim.fetch_all(&mut *connection).await;
            if claimed.is_err() {
                // PostgreSQL reports an error before it gives up the row locks, and the next claim
                // would skip these rows. It is ready for the next query after that.
                connection.ping().await?;
            }
            Ok(claimed?)
        };
        match self.with_retries(claim).await {
            Ok(rows) => self.readable(rows, now).await,
            Err(Error::Corrupt(_)) => self.claim_one_by_one(now, lease, limit).await,
            Err(error) => Err(error),
        }
    }

    async fn extend_lease(&self, id: OrderId, fence: i64, until: OffsetDateTime) -> Result<bool, Error> {
        let extend = sqlx::query("UPDATE orders SET due_at = $3 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL");
        let extend = extend.bind(id.as_uuid()).bind(fence).bind(until);
        Ok(extend.execute(&mut *self.pool.acquire().await?).await?.rows_affected() == 1)
    }

    async fn transition(
        &self,
        claimed: Claimed,
        transitions: Vec<Transition>,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error> {
        batches::transition(self, &self.changes, &claimed, &transitions, response, now).await
    }

    async fn end_revision(&self, claimed: Claimed, end: RevisionEnd, now: OffsetDateTime) -> Result<TransitionResult, Error> {
        self.with_retries(|| self.end(&claimed, &end, now)).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: String) -> Result<bool, Error> {
        // PostgreSQL text cannot contain NUL.
        let last_error = last_error.replace('\0', "\u{fffd}");
        self.with_retries(|| async {
            let postpone =
                sqlx::query("UPDATE orders SET due_at = $3, last_error = $4 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL");
            let postpone = postpone.bind(id.as_uuid()).bind(fence).bind(due_at).bind(&last_error);
            Ok(postpone.execute(&mut *self.pool.acquire().await?).await?.rows_affected() == 1)
        })
        .await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        self.with_retries(|| async {
            let done = sqlx::query(
                "UPDATE orders SET release_pending = FALSE, due_at = NULL, last_error = NULL
                 WHERE id = $1 AND fence = $2 AND release_pending",
            );
            let done = done.bind(id.as_uuid()).bind(fence).execute(&mut *self.pool.acquire().await?).await?;
            Ok(done.rows_affected() == 1)
        })
        .await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error> {
        let rows = sqlx::query(
            "SELECT id, status, release_pending, attempts, last_error, updated_at, due_at FROM orders
             WHERE due_at IS NOT NULL AND (updated_at <= $1 OR attempts >= $2)
             UNION ALL
             SELECT id, status, FALSE, f.attempts, f.last_error, updated_at, f.due_at FROM fulfilments f JOIN orders ON id = order_id
             WHERE updated_at <= $1 OR f.attempts >= $2
             ORDER BY updated_at, id LIMIT $3",
        )
        .bind(unchanged_since)
        .bind(i64::from(attempts))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.pool.acquire().await?)
        .await?;
        let stuck = |row: &PgRow| {
            Ok(StuckOrder {
                order_id: row.try_get::<Uuid, _>("id")?.into(),
                status: row.try_get::<&str, _>("status")?.parse().map_err(corrupt)?,
                release_pending: row.try_get("release_pending")?,
                attempts: row.try_get::<i64, _>("attempts")?.try_into().map_err(corrupt)?,
                last_error: row.try_get("last_error")?,
                updated_at: row::time(row, "updated_at")?,
                due_at: row::time(row, "due_at")?,
            })
        };
        // An unreadable order is listed in the quarantine.
        Ok(rows.iter().map(stuck).filter_map(Result::<_, Error>::ok).collect())
    }

    async fn quarantined(&self, limit: u32) -> Result<Vec<QuarantinedOrder>, Error> {
        let select = sqlx::query("SELECT order_id, reason, since FROM quarantined_orders ORDER BY since, order_id LIMIT $1");
        let rows = select.bind(i64::from(limit)).fetch_all(&mut *self.pool.acquire().await?).await?;
        let quarantined = rows.iter().map(|row| {
            let order_id = row.try_get::<Uuid, _>("order_id")?.into();
            Ok(QuarantinedOrder { order_id, reason: row.try_get("reason")?, since: row::time(row, "since")? })
        });
        Ok(quarantined.filter_map(|row| readable("quarantined_orders", row)).collect())
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.with_retries(|| async {
            let mut db = self.pool.acquire().await?;
            let release = sqlx::query("DELETE FROM quarantined_orders WHERE order_id = $1");
            release.bind(id.as_uuid()).execute(&mut *db).await?;
            let due = sqlx::query("UPDATE orders SET due_at = $2, attempts = 0 WHERE id = $1 AND due_at IS NOT NULL");
            let due = due.bind(id.as_uuid()).bind(now).execute(&mut *db).await?;
            let fulfilment = sqlx::query("UPDATE fulfilments SET due_at = $2, attempts = 0 WHERE order_id = $1");
            let fulfilment = fulfilment.bind(id.as_uuid()).bind(now).execute(&mut *db).await?;
            Ok(due.rows_affected() + fulfilment.rows_affected() > 0)
        })
        .await
    }
}
