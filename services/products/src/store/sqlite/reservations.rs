//! Reservations in SQLite. Each call is one transaction; concurrent new reservations share one.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::planted;
use palisade_store::json_rows;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore, begin, ledger,
    reserve_batch::{self, NewReservation},
};
use crate::{
    reservation::{ConfirmOutcome, FulfilOutcome, HeldLine, Lines, Refusal, Reservation, ReserveOutcome, ReviseOutcome, Revision, State},
    stock_ledger::{Kind, NewEntry},
    store::{
        database::{Error, from_millis, readable, to_millis},
        roles::ReservationStore,
    },
};

#[async_trait]
impl ReservationStore for SqliteStore {
    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        let new = NewReservation { id, lines: lines.clone(), confirm: false, now, hold_for };
        Ok(self.reserves.write(new).await?.reserve_outcome(&lines))
    }

    async fn reserve_and_confirm(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        let new = NewReservation { id, lines: lines.clone(), confirm: true, now, hold_for };
        Ok(self.reserves.write(new).await?.reserve_outcome(&lines))
    }

    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<ConfirmOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let Some(mut reservation) = find_or_expire(&mut transaction, id, now).await? else { return Ok(ConfirmOutcome::Unknown) };
        if reservation.state == State::Held {
            move_to(&mut transaction, &mut reservation, State::Confirmed).await?;
        }
        transaction.commit().await?;
        Ok(reservation.confirm_outcome())
    }

    async fn revise(&self, id: Uuid, revision: Revision, now: OffsetDateTime) -> Result<ReviseOutcome, Error> {
        self.revise_once(id, &revision, now).await
    }

    async fn fulfil(&self, id: Uuid, now: OffsetDateTime) -> Result<FulfilOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let Some(mut reservation) = find(&mut transaction, id).await? else { return Ok(FulfilOutcome::Unknown) };
        if reservation.state == State::Confirmed || (reservation.state == State::Fulfilled && planted!("fulfilled twice")) {
            take_off(&mut transaction, &mut reservation, now).await?;
        }
        transaction.commit().await?;
        Ok(reservation.fulfil_outcome())
    }

    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let mut reservation = if let Some(reservation) = find(&mut transaction, id).await? {
            reservation
        } else {
            let tombstone = Reservation { id, state: State::Released, lines: vec![], expires_at: now };
            if !planted!("no tombstone") {
                insert_tombstone(&mut transaction, &tombstone).await?;
            }
            tombstone
        };
        let again = reservation.state == State::Released && planted!("released twice");
        if again || matches!(reservation.state, State::Held | State::Confirmed) {
            give_back(&mut transaction, &mut reservation, State::Released, now).await?;
        }
        if planted!("release acknowledged before its commit") {
            transaction.rollback().await?;
            return Ok(reservation);
        }
        transaction.commit().await?;
        Ok(reservation)
    }

    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let due = sqlx::query(
            "SELECT * FROM reservations WHERE state = 'HELD' AND expires_at <= ?
                 AND id NOT IN (SELECT reservation_id FROM quarantined_reservations)
             ORDER BY expires_at LIMIT ?",
        )
        .bind(to_millis(now))
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        let mut expired = 0;
        for row in due {
            let id = row.try_get("id")?;
            // Each in a savepoint: one that cannot be read or violates a constraint does not block
            // the others.
            let mut savepoint = transaction.begin().await?;
            let result = expire(&mut savepoint, &row, now).await;
            if result.is_ok() {
                savepoint.commit().await?;
            } else {
                savepoint.rollback().await?;
            }
            match result {
                Ok(()) => expired += 1,
                Err(error @ Error::Corrupt(_)) => quarantine(&mut transaction, id, &error, now).await?,
                Err(error) => return Err(error),
            }
        }
        transaction.commit().await?;
        Ok(expired)
    }

    async fn delete_settled(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let select = sqlx::query_scalar(
            "SELECT id FROM reservations
             WHERE state IN ('REFUSED', 'RELEASED', 'EXPIRED') AND coalesce(settled_at, expires_at) <= ?
             ORDER BY coalesce(settled_at, expires_at) LIMIT ?",
        );
        let settled: Vec<Uuid> = select.bind(to_millis(before)).bind(limit).fetch_all(&mut *transaction).await?;
        let ids = reserve_batch::encode(&settled.iter().copied().map(json_rows::hex).collect::<Vec<_>>())?;
        for delete in [
            "DELETE FROM reservation_lines WHERE reservation_id IN (SELECT unhex(value) FROM json_each(?))",
            "DELETE FROM reservations WHERE id IN (SELECT unhex(value) FROM json_each(?))",
        ] {
            json_rows::execute(&mut transaction, delete, &ids).await?;
        }
        transaction.commit().await?;
        Ok(settled.len() as u64)
    }

    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
        // One snapshot for the reservations and their lines.
        let mut db = self.readers.acquire().await?;
        let mut transaction = db.begin().await?;
        let mut after = after.unwrap_or_default();
        loop {
            let rows = sqlx::query("SELECT * FROM reservations WHERE state IN ('HELD', 'CONFIRMED') AND id > ? ORDER BY id LIMIT ?")
                // The nil id sorts before every other id and is never used.
                .bind(after)
                .bind(limit)
                .fetch_all(&mut *transaction)
                .await?;
            let Some(last) = rows.last() else { return Ok(Vec::new()) };
            after = last.try_get("id")?;
            let mut open = Vec::with_capacity(rows.len());
            for row in rows {
                let lines = lines_of(&mut transaction, row.try_get("id")?).await;
                open.extend(readable("reservations", lines.and_then(|lines| reservation(&row, lines))));
            }
            // An empty page would end the list: continue after rows that cannot be read.
            if !open.is_empty() {
                return Ok(open);
            }
        }
    }
}

async fn expire(db: &mut SqliteConnection, row: &SqliteRow, now: OffsetDateTime) -> Result<(), Error> {
    give_back(db, &mut reservation(row, vec![])?, State::Expired, now).await
}

async fn quarantine(db: &mut SqliteConnection, id: Uuid, error: &Error, now: OffsetDateTime) -> Result<(), Error> {
    tracing::error!(reservation_id = %id, error = error as &dyn std::error::Error, "unreadable reservation put into quarantine");
    sqlx::query("INSERT OR IGNORE INTO quarantined_reservations (reservation_id, reason, since) VALUES (?, ?, ?)")
        .bind(id)
        .bind(error.to_string())
        .bind(to_millis(now))
        .execute(db)
        .await?;
    Ok(())
}

/// Returns the reservation, released first if it has expired: a reported "expired" is final.
pub(super) async fn find_or_expire(db: &mut SqliteConnection, id: Uuid, now: OffsetDateTime) -> Result<Option<Reservation>, Error> {
    let mut reservation = find(db, id).await?;
    if let Some(reservation) = reservation.as_mut().filter(|reservation| reservation.is_overdue(now)) {
        give_back(db, reservation, State::Expired, now).await?;
    }
    Ok(reservation)
}

pub(super) async fn find(db: &mut SqliteConnection, id: Uuid) -> Result<Option<Reservation>, Error> {
    let row = sqlx::query("SELECT * FROM reservations WHERE id = ?").bind(id).fetch_optional(&mut *db).await?;
    match row {
        Some(row) => Ok(Some(reservation(&row, lines_of(db, id).await?)?)),
        None => Ok(None),
    }
}

async fn lines_of(db: &mut SqliteConnection, id: Uuid) -> Result<Vec<HeldLine>, Error> {
    let rows = sqlx::query("SELECT * FROM reservation_lines WHERE reservation_id = ? ORDER BY product_id").bind(id).fetch_all(db).await?;
    let line = |row: &SqliteRow| {
        Ok(HeldLine {
            product_id: row.try_get("product_id")?,
            quantity: row.try_get("quantity")?,
            name: row.try_get("name")?,
            unit_price_minor: row.try_get("unit_price_minor")?,
        })
    };
    rows.iter().map(line).collect()
}

/// Inserts a reservation without lines, so that a later reserve finds it (tombstone).
async fn insert_tombstone(db: &mut SqliteConnection, tombstone: &Reservation) -> Result<(), Error> {
    sqlx::query("INSERT INTO reservations (id, state, expires_at) VALUES (?, ?, ?)")
        .bind(tombstone.id)
        .bind(tombstone.state.as_str())
        .bind(to_millis(tombstone.expires_at))
        .execute(db)
        .await?;
    Ok(())
}

async fn give_back(db: &mut SqliteConnection, reservation: &mut Reservation, to: State, now: OffsetDateTime) -> Result<(), Error> {
    let give_back = sqlx::query(
        "UPDATE products
         SET quantity = products.quantity + line.quantity, taken = taken - line.quantity, version = version + 1, updated_at = ?2
         FROM reservation_lines AS line
         WHERE line.reservation_id = ?1 AND line.product_id = products.id",
    )
    .bind(reservation.id)
    .bind(to_millis(now));
    if !planted!("units not given back") {
        give_back.execute(&mut *db).await?;
    }
    let settle = sqlx::query("UPDATE reservations SET state = ?, settled_at = ? WHERE id = ?");
    settle.bind(to.as_str()).bind(to_millis(now)).bind(reservation.id).execute(db).await?;
    reservation.state = to;
    Ok(())
}

/// Takes the units off the supply. No visible field of a product changes, so its version is kept.
async fn take_off(db: &mut SqliteConnection, reservation: &mut Reservation, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(
        "UPDATE products SET taken = taken - line.quantity, supply = supply - line.quantity, booked = booked - line.quantity
         FROM reservation_lines AS line
         WHERE line.reservation_id = ? AND line.product_id = products.id",
    )
    .bind(reservation.id)
    .execute(&mut *db)
    .await?;
    let entry = |line: &HeldLine| {
        let entry = NewEntry { order_id: Some(reservation.id), ..NewEntry::new(line.product_id, Kind::Fulfilment, now) };
        (entry, -line.quantity)
    };
    if !planted!("fulfilment without ledger entry") {
        ledger::record(db, &reservation.lines.iter().map(entry).collect::<Vec<_>>()).await?;
    }
    let fulfil = sqlx::query("UPDATE reservations SET state = 'RELEASED', fulfilled_at = ?1, settled_at = ?1 WHERE id = ?2");
    fulfil.bind(to_millis(now)).bind(reservation.id).execute(db).await?;
    reservation.state = State::Fulfilled;
    Ok(())
}

pub(super) async fn move_to(db: &mut SqliteConnection, reservation: &mut Reservation, to: State) -> Result<(), Error> {
    sqlx::query("UPDATE reservations SET state = ? WHERE id = ?").bind(to.as_str()).bind(reservation.id).execute(db).await?;
    reservation.state = to;
    Ok(())
}

fn reservation(row: &SqliteRow, lines: Vec<HeldLine>) -> Result<Reservation, Error> {
    let refusal: Option<&str> = row.try_get("refusal")?;
    let product_id: Option<Uuid> = row.try_get("refused_product")?;
    let state: &str = row.try_get("state")?;
    let fulfilled_at: Option<i64> = row.try_get("fulfilled_at")?;
    let stored = State::parse(state, refusal.and_then(Refusal::parse).zip(product_id));
    Ok(Reservation {
        id: row.try_get("id")?,
        state: match fulfilled_at {
            Some(_) => State::Fulfilled,
            None => stored.ok_or_else(|| Error::Corrupt(format!("unknown state {state}")))?,
        },
        lines,
        expires_at: from_millis(row.try_get("expires_at")?)?,
    })
}
