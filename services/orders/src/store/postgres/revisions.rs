//! Revisions in PostgreSQL: one transaction for the request, one for the end. Each locks the order
//! first.

use std::time::Duration;

use palisade_middleware::{auth::Subject, clock, preconditions::VersionPreconditions};
use sqlx::{Connection, PgConnection, Postgres, Row, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{PostgresStore, row};
use crate::{
    order::{Actor, Line, MaxTotal, Order, OrderId, Status},
    saga::{RevisionEnd, Saga},
    store::{
        database::Error,
        orders::Claimed,
        revisions::{self, END, INSERT_EVENT, INSERT_HISTORY, REQUEST, RequestRevisionResult, RevisionStep},
        saga_queue::TransitionResult,
    },
};

const LOCK: &str = "SELECT version, fence, revision IS NOT NULL FROM orders WHERE id = $1 FOR UPDATE";

impl PostgresStore {
    pub(super) async fn request(
        &self,
        id: OrderId,
        wanted: &(Vec<Line>, Option<MaxTotal>),
        by: &Actor,
        preconditions: &VersionPreconditions,
        (now, lease): (OffsetDateTime, Duration),
    ) -> Result<RequestRevisionResult, Error> {
        let mut db = self.pool.acquire().await?;
        let mut transaction = db.begin().await?;
        sqlx::query(LOCK).bind(id.as_uuid()).fetch_optional(&mut *transaction).await?;
        let decision = match row::find_including_removed(&mut transaction, id).await? {
            Some(order) => revisions::decide(order, wanted.clone(), preconditions, now),
            None => Err(Box::new(RequestRevisionResult::NotFound)),
        };
        let requested = match decision {
            Ok(requested) => requested,
            Err(result) => {
                unlock(transaction).await?;
                return Ok(*result);
            }
        };
        let update = sqlx::query(REQUEST)
            .bind(id.as_uuid())
            .bind(requested.revision.as_ref().map(revisions::encode).transpose()?)
            .bind(requested.version)
            .bind(now)
            .bind(clock::after(now, lease));
        let updated = update.fetch_one(&mut *transaction).await?;
        record(&mut transaction, &requested, by, &RevisionStep::requested(&requested)?, now).await?;
        let saga = Saga {
            order: requested,
            release_pending: false,
            deadline: row::time(&updated, "saga_deadline")?,
            attempts: 1,
            max_total: None,
        };
        let claimed = Claimed { saga, fence: updated.try_get("fence")?, trace_parent: updated.try_get("trace_parent")? };
        transaction.commit().await?;
        Ok(RequestRevisionResult::Requested(claimed))
    }

    pub(super) async fn end(&self, claimed: &Claimed, end: &RevisionEnd, now: OffsetDateTime) -> Result<TransitionResult, Error> {
        let before = &claimed.saga.order;
        let id = before.id;
        let mut db = self.pool.acquire().await?;
        let mut transaction = db.begin().await?;
        let locked: Option<(i64, i64, bool)> = sqlx::query_as(LOCK).bind(id.as_uuid()).fetch_optional(&mut *transaction).await?;
        if locked != Some((before.version, claimed.fence, true)) {
            let order = row::find_including_removed(&mut transaction, id).await?;
            unlock(transaction).await?;
            return order.map(TransitionResult::Fenced).ok_or_else(|| Error::Corrupt(format!("order {id} does not exist")));
        }
        let after = end.apply(before.clone(), now);
        if matches!(end, RevisionEnd::Revised(_)) {
            replace_lines(&mut transaction, &after).await?;
        }
        let update = sqlx::query(END).bind(id.as_uuid()).bind(after.total_minor).bind(after.version).bind(after.updated_at);
        update.execute(&mut *transaction).await?;
        record(&mut transaction, &after, &Actor::saga(), &RevisionStep::ended(end, before, &after, now)?, now).await?;
        transaction.commit().await?;
        let saga = Saga { order: after, ..claimed.saga.clone() };
        Ok(TransitionResult::Applied(Claimed { saga, ..claimed.clone() }))
    }
}

/// Ends the lock of the order at once. A dropped transaction ends later, and a worker that claims
/// due orders would skip the order until then.
async fn unlock(transaction: Transaction<'_, Postgres>) -> Result<(), Error> {
    Ok(transaction.rollback().await?)
}

async fn replace_lines(db: &mut PgConnection, order: &Order) -> Result<(), Error> {
    sqlx::query("DELETE FROM order_lines WHERE order_id = $1").bind(order.id.as_uuid()).execute(&mut *db).await?;
    let snapshots = || order.lines.iter().map(|line| line.snapshot.as_ref());
    let insert = sqlx::query(
        "INSERT INTO order_lines (order_id, position, product_id, quantity, name, unit_price_minor)
         SELECT $1, line.position, line.product_id, line.quantity, line.name, line.price
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::bigint[]) WITH ORDINALITY AS line (product_id, quantity, name, price, position)",
    );
    let insert = insert
        .bind(order.id.as_uuid())
        .bind(order.lines.iter().map(|line| line.product_id).collect::<Vec<Uuid>>())
        .bind(order.lines.iter().map(|line| line.quantity).collect::<Vec<_>>())
        .bind(snapshots().map(|snapshot| Some(snapshot?.name.as_str())).collect::<Vec<_>>())
        .bind(snapshots().map(|snapshot| Some(snapshot?.unit_price_minor)).collect::<Vec<_>>());
    insert.execute(db).await?;
    Ok(())
}

/// Writes the row of the history and the event of a step.
async fn record(db: &mut PgConnection, order: &Order, by: &Actor, step: &RevisionStep, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(INSERT_HISTORY)
        .bind(order.id.as_uuid())
        .bind(order.version)
        .bind(Status::Confirmed.as_str())
        .bind(step.name)
        .bind(&step.replaced_lines)
        .bind(by.role.as_str())
        .bind(by.subject.as_ref().map(Subject::as_str))
        .bind(by.service.as_deref())
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query(INSERT_EVENT)
        .bind(step.event.event_id)
        .bind(order.id.as_uuid())
        .bind(order.version)
        .bind(&step.event.kind)
        .bind(&step.event.payload)
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}
