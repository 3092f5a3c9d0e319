//! Model of the products service, after its contract.

use std::{collections::BTreeMap, time::Duration};

use palisade_orders::{
    order::{FailureReason, HeldLine, Line, Order, OrderId, ProductSnapshot},
    saga::{ConfirmOutcome, ReleaseOutcome, ReserveOutcome, ReviseOutcome},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Bug;

/// Initial units of each product.
const STOCK: i64 = 12;
const HOLD: Duration = Duration::from_mins(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Held { until: OffsetDateTime },
    Confirmed,
    Rejected,
    Released,
    Expired,
}

/// Model of the products service, after its contract. Like the previous release, it ignores the
/// maximum total of an order.
pub(crate) struct Products {
    stock: BTreeMap<Uuid, i64>,
    pub(crate) holds: BTreeMap<OrderId, (Hold, Vec<Line>)>,
    /// Last revision of each hold, and whether it was made.
    revisions: BTreeMap<OrderId, (i64, bool)>,
    bug: Bug,
}

impl Products {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { stock: (1..=3).map(|n| (Uuid::from_u128(n), STOCK)).collect(), holds: BTreeMap::new(), revisions: BTreeMap::new(), bug }
    }

    pub(crate) fn reserve(&mut self, order: &Order, now: OffsetDateTime) -> ReserveOutcome {
        let existing = self.holds.get(&order.id).map(|(hold, _)| *hold);
        let reserves_again = self.bug == Bug::ReserveTwice && matches!(existing, Some(Hold::Held { .. }));
        match existing {
            Some(Hold::Rejected) => ReserveOutcome::Rejected(FailureReason::InsufficientStock),
            Some(Hold::Released) => ReserveOutcome::Released,
            Some(Hold::Expired) => ReserveOutcome::Expired,
            Some(Hold::Held { .. } | Hold::Confirmed) if !reserves_again => Self::held(&order.lines),
            _ if order.lines.iter().all(|line| self.stock[&line.product_id] >= line.quantity) => {
                self.move_stock(&order.lines, -1);
                self.holds.insert(order.id, (Hold::Held { until: now + HOLD }, order.lines.clone()));
                Self::held(&order.lines)
            }
            _ => {
                self.holds.insert(order.id, (Hold::Rejected, order.lines.clone()));
                ReserveOutcome::Rejected(FailureReason::InsufficientStock)
            }
        }
    }

    pub(crate) fn confirm(&mut self, order: &Order, now: OffsetDateTime) -> ConfirmOutcome {
        match self.holds.get_mut(&order.id) {
            Some((Hold::Held { until }, _)) if *until <= now => ConfirmOutcome::Lost,
            Some((hold @ (Hold::Held { .. } | Hold::Confirmed), _)) => {
                *hold = Hold::Confirmed;
                ConfirmOutcome::Confirmed
            }
            _ => ConfirmOutcome::Lost,
        }
    }

    pub(crate) fn release(&mut self, order: &Order) -> ReleaseOutcome {
        match self.holds.get(&order.id).map(|(hold, _)| *hold) {
            Some(Hold::Held { .. } | Hold::Confirmed) => {
                let lines = self.holds[&order.id].1.clone();
                self.move_stock(&lines, 1);
                self.holds.insert(order.id, (Hold::Released, lines));
            }
            None if self.bug != Bug::NoTombstone => {
                self.holds.insert(order.id, (Hold::Released, order.lines.clone()));
            }
            _ => {}
        }
        ReleaseOutcome::Done
    }

    /// The version of the order numbers its revision.
    pub(crate) fn revise(&mut self, order: &Order) -> ReviseOutcome {
        let Some(revision) = &order.revision else { panic!("no revision is pending") };
        let Some((Hold::Confirmed, current)) = self.holds.get(&order.id).cloned() else { return ReviseOutcome::Lost };
        let last = self.revisions.get(&order.id).filter(|_| self.bug != Bug::UnnumberedRevision).copied();
        match last {
            Some((number, _)) if number > order.version => return ReviseOutcome::Lost,
            Some((number, revised)) if number == order.version => return Self::revised(revised, &current),
            _ => {}
        }
        let missing =
            |line: &Line| line.quantity - current.iter().find(|held| held.product_id == line.product_id).map_or(0, |held| held.quantity);
        let revised = revision.lines.iter().all(|line| self.stock[&line.product_id] >= missing(line));
        self.revisions.insert(order.id, (order.version, revised));
        if revised {
            self.move_stock(&current, 1);
            self.move_stock(&revision.lines, -1);
            self.holds.insert(order.id, (Hold::Confirmed, revision.lines.clone()));
        }
        Self::revised(revised, &revision.lines)
    }

    fn revised(revised: bool, lines: &[Line]) -> ReviseOutcome {
        match Self::held(lines) {
            ReserveOutcome::Held(held) if revised => ReviseOutcome::Revised(held),
            _ => ReviseOutcome::Refused(FailureReason::InsufficientStock),
        }
    }

    pub(crate) fn expire(&mut self, now: OffsetDateTime) {
        let due: Vec<OrderId> =
            self.holds.iter().filter(|(_, (hold, _))| matches!(hold, Hold::Held { until } if *until <= now)).map(|(id, _)| *id).collect();
        for id in due {
            let lines = self.holds[&id].1.clone();
            self.move_stock(&lines, 1);
            self.holds.insert(id, (Hold::Expired, lines));
        }
    }

    fn held(lines: &[Line]) -> ReserveOutcome {
        let held = |line: &Line| HeldLine {
            product_id: line.product_id,
            quantity: line.quantity,
            snapshot: ProductSnapshot { name: "thing".into(), unit_price_minor: 100 },
        };
        ReserveOutcome::Held(lines.iter().map(held).collect())
    }

    fn move_stock(&mut self, lines: &[Line], sign: i64) {
        for line in lines {
            *self.stock.get_mut(&line.product_id).unwrap() += sign * line.quantity;
        }
    }

    /// I1 and I2: remaining and reserved units add up to the initial stock, and no quantity is
    /// negative.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (product, available) in &self.stock {
            let open = self.holds.values().filter(|(hold, _)| matches!(hold, Hold::Held { .. } | Hold::Confirmed));
            let reserved: i64 =
                open.flat_map(|(_, lines)| lines).filter(|line| line.product_id == *product).map(|line| line.quantity).sum();
            if *available < 0 || available + reserved != STOCK {
                return Err(format!("{available} available and {reserved} reserved of {STOCK}"));
            }
        }
        Ok(())
    }
}
