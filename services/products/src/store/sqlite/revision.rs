//! Revisions in SQLite: one transaction each.

use palisade_store::json_rows::hex;
use serde::Serialize;
use sqlx::{Row, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore, begin,
    reservations::find,
    reserve_batch::{encode, insert_lines, load_stock},
};
use crate::{
    reservation::{Difference, Refusal, Reservation, ReviseOutcome, Revision, State},
    store::database::{Error, to_millis},
};

/// `?1` is a JSON array, `?2` the time.
const MOVE_UNITS: &str = "
    UPDATE products
    SET quantity = products.quantity - moved.units, taken = products.taken + moved.units, version = version + 1, updated_at = ?2
    FROM (SELECT unhex(value ->> 'product_id') AS product_id, value ->> 'units' AS units FROM json_each(?1)) AS moved
    WHERE products.id = moved.product_id";

/// Last revision of a reservation.
struct LastRevision {
    number: i64,
    refused: Option<(Refusal, Uuid)>,
}

#[derive(Serialize)]
struct UnitsRow {
    product_id: String,
    units: i64,
}

impl SqliteStore {
    pub(super) async fn revise_once(&self, id: Uuid, revision: &Revision, now: OffsetDateTime) -> Result<ReviseOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let Some(mut reservation) = find(&mut transaction, id).await? else { return Ok(ReviseOutcome::Unknown) };
        if reservation.state != State::Confirmed {
            return Ok(ReviseOutcome::NotConfirmed);
        }
        let last = last_revision(&mut transaction, id).await?;
        if last.number >= revision.number {
            return Ok(last.outcome(reservation, revision));
        }
        let differences = revision.differences(&reservation.lines);
        let stock = load_stock(&mut transaction, differences.iter().map(|difference| difference.product_id)).await?;
        let outcome = match revision.evaluate(&reservation.lines, &stock) {
            Ok(lines) => {
                reservation.lines = lines;
                apply(&mut transaction, &reservation, &differences, now).await?;
                record(&mut transaction, id, revision.number, None).await?;
                ReviseOutcome::Revised(reservation)
            }
            Err((reason, product_id)) => {
                record(&mut transaction, id, revision.number, Some((reason, product_id))).await?;
                ReviseOutcome::Refused { reason, product_id }
            }
        };
        transaction.commit().await?;
        Ok(outcome)
    }
}

impl LastRevision {
    /// Outcome of a revision that is not later than this one.
    fn outcome(self, reservation: Reservation, repeated: &Revision) -> ReviseOutcome {
        match self.refused {
            _ if self.number > repeated.number => ReviseOutcome::Superseded,
            Some((reason, product_id)) => ReviseOutcome::Refused { reason, product_id },
            None if reservation.has_lines(&repeated.lines) => ReviseOutcome::Revised(reservation),
            None => ReviseOutcome::DifferentLines,
        }
    }
}

async fn last_revision(db: &mut SqliteConnection, id: Uuid) -> Result<LastRevision, Error> {
    let select = sqlx::query("SELECT revision, revision_refusal, revision_refused_product FROM reservations WHERE id = ?");
    let row = select.bind(id).fetch_one(db).await?;
    let refusal: Option<&str> = row.try_get("revision_refusal")?;
    let product: Option<Uuid> = row.try_get("revision_refused_product")?;
    Ok(LastRevision { number: row.try_get("revision")?, refused: refusal.and_then(Refusal::parse).zip(product) })
}

/// Moves the units and replaces the lines.
async fn apply(db: &mut SqliteConnection, revised: &Reservation, differences: &[Difference], now: OffsetDateTime) -> Result<(), Error> {
    let units = differences.iter().map(|difference| UnitsRow { product_id: hex(difference.product_id), units: difference.units });
    let units = encode(&units.collect::<Vec<_>>())?;
    sqlx::query(MOVE_UNITS).bind(units).bind(to_millis(now)).execute(&mut *db).await?;
    sqlx::query("DELETE FROM reservation_lines WHERE reservation_id = ?").bind(revised.id).execute(&mut *db).await?;
    insert_lines(db, std::iter::once(revised)).await
}

async fn record(db: &mut SqliteConnection, id: Uuid, number: i64, refused: Option<(Refusal, Uuid)>) -> Result<(), Error> {
    let (refusal, product) = refused.unzip();
    let record = sqlx::query("UPDATE reservations SET revision = ?2, revision_refusal = ?3, revision_refused_product = ?4 WHERE id = ?1");
    record.bind(id).bind(number).bind(refusal.map(Refusal::as_str)).bind(product).execute(db).await?;
    Ok(())
}
