//! Revision of a confirmed reservation: its new lines and the units to take and to give back.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{HeldLine, Line, Lines, ProductStock, Refusal, Reservation};

/// Change of the lines of a confirmed reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Number, at least 1. Each later revision of a reservation has a greater one.
    pub number: i64,
    /// All lines after the revision.
    pub lines: Lines,
}

/// Outcome of a revision. A repeated call returns the same outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReviseOutcome {
    /// The reservation has the lines of the revision.
    Revised(Reservation),
    /// The units that are missing cannot be taken: the reservation keeps its lines.
    Refused {
        /// Reason.
        reason: Refusal,
        /// First product that could not be reserved.
        product_id: Uuid,
    },
    /// The number belongs to a revision with other lines.
    DifferentLines,
    /// A later revision was made.
    Superseded,
    /// The reservation does not own confirmed units.
    NotConfirmed,
    /// No reservation has this id.
    Unknown,
}

/// Units of one product that a revision moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Id of the product.
    pub product_id: Uuid,
    /// Positive: units to take. Negative: units to give back. Never 0.
    pub units: i64,
}

impl Revision {
    /// Returns the units by which the lines of the revision differ from `current`, by product.
    pub fn differences(&self, current: &[HeldLine]) -> Vec<Difference> {
        let mut units: BTreeMap<Uuid, i64> = self.lines.as_slice().iter().map(|line| (line.product_id, line.quantity)).collect();
        for line in current {
            *units.entry(line.product_id).or_default() -= line.quantity;
        }
        let differences = units.into_iter().filter(|(_, units)| *units != 0);
        differences.map(|(product_id, units)| Difference { product_id, units }).collect()
    }

    /// Decides the revision of a reservation with the lines `current` by the stock of its products.
    /// Returns its new lines, or the reason why they cannot be had and the product.
    ///
    /// A line whose quantity does not change keeps its name and price. Giving back units needs no
    /// product for sale.
    pub fn evaluate(&self, current: &[HeldLine], stock: &HashMap<Uuid, ProductStock>) -> Result<Vec<HeldLine>, (Refusal, Uuid)> {
        let current: HashMap<Uuid, &HeldLine> = current.iter().map(|line| (line.product_id, line)).collect();
        let revise = |line: &Line| {
            let before = current.get(&line.product_id);
            let missing = line.quantity - before.map_or(0, |before| before.quantity);
            let product = stock.get(&line.product_id);
            let refusal = match product {
                _ if missing <= 0 => None,
                None => Some(Refusal::UnknownProduct),
                Some(product) => product.refusal_for(missing),
            };
            if let Some(reason) = refusal {
                return Err((reason, line.product_id));
            }
            let kept = before.map(|before| (before.name.clone(), before.unit_price_minor));
            let priced = product.filter(|_| missing != 0).map(|product| (product.name.clone(), product.unit_price_minor));
            let (name, unit_price_minor) = priced.or(kept).unwrap_or_default();
            Ok(HeldLine { product_id: line.product_id, quantity: line.quantity, name, unit_price_minor })
        };
        let lines = self.lines.as_slice().iter().map(revise).collect::<Result<Vec<_>, _>>()?;
        match self.lines.product_over_limit(&lines) {
            Some(product_id) => Err((Refusal::PriceChanged, product_id)),
            None => Ok(lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);
    const C: Uuid = Uuid::from_u128(3);

    fn revision(lines: &[(Uuid, i64)]) -> Revision {
        let lines = lines.iter().map(|&(product_id, quantity)| Line { product_id, quantity }).collect();
        Revision { number: 4, lines: Lines::new(lines).unwrap() }
    }

    fn held(product_id: Uuid, quantity: i64) -> HeldLine {
        HeldLine { product_id, quantity, name: "old".into(), unit_price_minor: 100 }
    }

    fn stock(quantity: i64, is_active: bool) -> ProductStock {
        ProductStock { name: "new".into(), unit_price_minor: 250, quantity, is_active }
    }

    #[test]
    fn differences_cover_old_and_new_lines() {
        let differences = revision(&[(A, 5), (C, 1)]).differences(&[held(A, 2), held(B, 3)]);
        let units: Vec<_> = differences.iter().map(|difference| (difference.product_id, difference.units)).collect();
        assert_eq!(units, [(A, 3), (B, -3), (C, 1)]);
        assert_eq!(revision(&[(A, 2)]).differences(&[held(A, 2)]), []);
    }

    #[test]
    fn unchanged_line_keeps_its_price() {
        let stock = HashMap::from([(A, stock(9, true)), (B, stock(9, true)), (C, stock(1, true))]);
        let lines = revision(&[(A, 2), (B, 1), (C, 1)]).evaluate(&[held(A, 2), held(B, 3)], &stock).unwrap();
        let priced: Vec<_> = lines.iter().map(|line| (line.product_id, line.quantity, line.name.as_str(), line.unit_price_minor)).collect();
        assert_eq!(priced, [(A, 2, "old", 100), (B, 1, "new", 250), (C, 1, "new", 250)]);
    }

    #[test]
    fn total_is_limited() {
        let stock = HashMap::from([(A, stock(9, true)), (B, stock(9, true))]);
        // The unchanged line keeps its old price of 100.
        let evaluate = |max| {
            let Revision { number, lines } = revision(&[(A, 2), (B, 1)]);
            Revision { number, lines: lines.with_max_total(Some(max)) }.evaluate(&[held(A, 2)], &stock).err()
        };
        assert_eq!((evaluate(450), evaluate(449)), (None, Some((Refusal::PriceChanged, A))));
    }

    #[test]
    fn only_missing_units_are_refused() {
        let current = [held(A, 5), held(B, 5)];
        let stock = HashMap::from([(A, stock(1, true)), (B, stock(9, false))]);
        for (lines, expected) in [
            (vec![(A, 6), (B, 4)], None),
            (vec![(A, 7), (B, 5)], Some((Refusal::InsufficientStock, A))),
            (vec![(B, 6)], Some((Refusal::ProductInactive, B))),
            (vec![(B, 1)], None),
            (vec![(C, 1)], Some((Refusal::UnknownProduct, C))),
        ] {
            assert_eq!(revision(&lines).evaluate(&current, &stock).err(), expected, "{lines:?}");
        }
        assert!(revision(&[(B, 2)]).evaluate(&current, &HashMap::new()).is_ok(), "units are given back without the product");
    }
}
