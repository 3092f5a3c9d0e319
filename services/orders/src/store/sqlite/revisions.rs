//! Revisions in SQLite: one transaction for the request, one for the end.

use std::time::Duration;

use palisade_middleware::{auth::Subject, clock, preconditions::VersionPreconditions};
use serde::Serialize;
use sqlx::{Connection, Row, SqliteConnection};
use time::OffsetDateTime;

use super::{
    SqliteStore,
    batch::{self, hex},
    row::{self, to_ms},
};
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

const INSERT_LINES: &str = "
    INSERT INTO order_lines (order_id, position, product_id, quantity, name, unit_price_minor)
    SELECT unhex(value ->> 'order_id'), value ->> 'position', unhex(value ->> 'product_id'), value ->> 'quantity', value ->> 'name', value ->> 'price'
    FROM json_each($1)";

#[derive(Serialize)]
struct LineRow<'a> {
    order_id: String,
    position: i64,
    product_id: String,
    quantity: i64,
    name: Option<&'a str>,
    price: Option<i64>,
}

impl SqliteStore {
    pub(super) async fn request(
        &self,
        id: OrderId,
        wanted: (Vec<Line>, Option<MaxTotal>),
        by: &Actor,
        preconditions: VersionPreconditions,
        (now, lease): (OffsetDateTime, Duration),
    ) -> Result<RequestRevisionResult, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let Some(order) = row::find_including_removed(&mut transaction, id).await? else { return Ok(RequestRevisionResult::NotFound) };
        let requested = match revisions::decide(order, wanted, &preconditions, now) {
            Ok(requested) => requested,
            Err(result) => return Ok(*result),
        };
        let update = sqlx::query(REQUEST)
            .bind(id.as_uuid())
            .bind(requested.revision.as_ref().map(revisions::encode).transpose()?)
            .bind(requested.version)
            .bind(to_ms(now))
            .bind(to_ms(clock::after(now, lease)));
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
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let owned = sqlx::query_scalar("SELECT 1 FROM orders WHERE id = $1 AND version = $2 AND fence = $3 AND revision IS NOT NULL");
        let owned: Option<i64> =
            owned.bind(id.as_uuid()).bind(before.version).bind(claimed.fence).fetch_optional(&mut *transaction).await?;
        if owned.is_none() {
            let order = row::find_including_removed(&mut transaction, id).await?;
            return order.map(TransitionResult::Fenced).ok_or_else(|| Error::Corrupt(format!("order {id} does not exist")));
        }
        let after = end.apply(before.clone(), now);
        if matches!(end, RevisionEnd::Revised(_)) {
            replace_lines(&mut transaction, &after).await?;
        }
        let update = sqlx::query(END).bind(id.as_uuid()).bind(after.total_minor).bind(after.version).bind(to_ms(after.updated_at));
        update.execute(&mut *transaction).await?;
        record(&mut transaction, &after, &Actor::saga(), &RevisionStep::ended(end, before, &after, now)?, now).await?;
        transaction.commit().await?;
        let saga = Saga { order: after, ..claimed.saga.clone() };
        Ok(TransitionResult::Applied(Claimed { saga, ..claimed.clone() }))
    }
}

async fn replace_lines(db: &mut SqliteConnection, order: &Order) -> Result<(), Error> {
    sqlx::query("DELETE FROM order_lines WHERE order_id = $1").bind(order.id.as_uuid()).execute(&mut *db).await?;
    let lines = (1_i64..).zip(&order.lines).map(|(position, line)| LineRow {
        order_id: hex(order.id.as_uuid()),
        position,
        product_id: hex(line.product_id),
        quantity: line.quantity,
        name: line.snapshot.as_ref().map(|snapshot| snapshot.name.as_str()),
        price: line.snapshot.as_ref().map(|snapshot| snapshot.unit_price_minor),
    });
    Ok(batch::execute(db, INSERT_LINES, &batch::json(&lines.collect::<Vec<_>>())?).await?)
}

/// Writes the row of the history and the event of a step.
async fn record(db: &mut SqliteConnection, order: &Order, by: &Actor, step: &RevisionStep, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(INSERT_HISTORY)
        .bind(order.id.as_uuid())
        .bind(order.version)
        .bind(Status::Confirmed.as_str())
        .bind(step.name)
        .bind(&step.replaced_lines)
        .bind(by.role.as_str())
        .bind(by.subject.as_ref().map(Subject::as_str))
        .bind(by.service.as_deref())
        .bind(to_ms(now))
        .execute(&mut *db)
        .await?;
    sqlx::query(INSERT_EVENT)
        .bind(step.event.event_id)
        .bind(order.id.as_uuid())
        .bind(order.version)
        .bind(&step.event.kind)
        .bind(&step.event.payload)
        .bind(to_ms(now))
        .execute(db)
        .await?;
    Ok(())
}
