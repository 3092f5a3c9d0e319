//! Sequential model of a product: available units, its reservations, and adjustments by key.

use std::collections::BTreeMap;

use palisade_tests::linearizability::Model;
use uuid::Uuid;

/// Model of one product, created with [`UNITS`] units. Each reservation has one line.
#[derive(Debug)]
pub(crate) struct Product;

/// Units of a new product.
pub(crate) const UNITS: i64 = 12;

/// Call to products.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// Reserves units. The same id always has the same quantity.
    Reserve(Uuid, i64),
    Confirm(Uuid),
    Release(Uuid),
    Fulfil(Uuid),
    /// Changes the stock, once per idempotency key.
    Adjust(Uuid, i64),
    Read,
}

/// Definitive reply of products. Errors that prove nothing are no replies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// State of the reservation after the call.
    Is(State),
    /// Rejected because of this state, or because no reservation has the id.
    Rejected(Option<State>),
    /// A reservation or adjustment that exceeds the available units.
    InsufficientStock,
    /// Neither confirmed nor fulfilled.
    NotConfirmed,
    /// Available units after the call.
    Units(i64),
}

/// State of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Held,
    Confirmed,
    Fulfilled,
    Released,
    Refused,
}

/// State of a product.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stock {
    available: i64,
    /// State and quantity. The quantity of a tombstone is 0.
    reservations: BTreeMap<Uuid, (State, i64)>,
    /// Results by idempotency key. `None`: refused.
    adjustments: BTreeMap<Uuid, Option<i64>>,
}

impl Default for Stock {
    fn default() -> Self {
        Self { available: UNITS, reservations: BTreeMap::new(), adjustments: BTreeMap::new() }
    }
}

impl Model for Product {
    type State = Stock;
    type Call = Call;
    type Reply = Reply;

    fn step(stock: &Stock, call: &Call, reply: Option<&Reply>) -> Option<Stock> {
        let mut next = stock.clone();
        let expected = next.apply(call);
        reply.is_none_or(|reply| *reply == expected).then_some(next)
    }
}

impl Stock {
    fn apply(&mut self, call: &Call) -> Reply {
        match *call {
            Call::Reserve(id, quantity) => self.reserve(id, quantity),
            Call::Confirm(id) => match self.state(id) {
                Some(State::Held) => self.become_state(id, State::Confirmed),
                Some(state @ (State::Confirmed | State::Fulfilled)) => Reply::Is(state),
                other => Reply::Rejected(other),
            },
            Call::Release(id) => match self.state(id) {
                Some(State::Held | State::Confirmed) => {
                    self.available += self.reservations[&id].1;
                    self.become_state(id, State::Released)
                }
                None => self.become_state(id, State::Released),
                Some(state) => Reply::Is(state),
            },
            Call::Fulfil(id) => match self.state(id) {
                Some(State::Confirmed | State::Fulfilled) => self.become_state(id, State::Fulfilled),
                None => Reply::Rejected(None),
                Some(_) => Reply::NotConfirmed,
            },
            Call::Adjust(key, delta) => {
                let result = self.adjustments.get(&key).copied().unwrap_or_else(|| {
                    let units = Some(self.available + delta).filter(|units| *units >= 0);
                    self.available = units.unwrap_or(self.available);
                    self.adjustments.insert(key, units);
                    units
                });
                result.map_or(Reply::InsufficientStock, Reply::Units)
            }
            Call::Read => Reply::Units(self.available),
        }
    }

    fn reserve(&mut self, id: Uuid, quantity: i64) -> Reply {
        if !self.reservations.contains_key(&id) {
            let state = if self.available >= quantity { State::Held } else { State::Refused };
            self.available -= if state == State::Held { quantity } else { 0 };
            self.reservations.insert(id, (state, quantity));
        }
        match self.reservations[&id].0 {
            State::Refused => Reply::InsufficientStock,
            State::Released => Reply::Rejected(Some(State::Released)),
            state => Reply::Is(state),
        }
    }

    fn state(&self, id: Uuid) -> Option<State> {
        self.reservations.get(&id).map(|(state, _)| *state)
    }

    fn become_state(&mut self, id: Uuid, state: State) -> Reply {
        self.reservations.entry(id).or_insert((state, 0)).0 = state;
        Reply::Is(state)
    }
}

#[cfg(test)]
mod tests {
    use palisade_tests::linearizability::{Operation, check};

    use super::*;

    /// Verdict about calls one after the other.
    fn is_explained(calls: impl IntoIterator<Item = (Call, Reply)>) -> bool {
        let operation = |(index, (call, reply)): (u64, _)| Operation {
            call,
            reply: Some(reply),
            called_at: 2 * index,
            replied_at: Some(2 * index + 1),
        };
        check::<Product>(&(0..).zip(calls).map(operation).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn product_model_accepts_the_contract() {
        let (a, b, key) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        assert!(is_explained([
            (Call::Reserve(a, 5), Reply::Is(State::Held)),
            (Call::Read, Reply::Units(7)),
            (Call::Confirm(a), Reply::Is(State::Confirmed)),
            (Call::Reserve(b, 8), Reply::InsufficientStock),
            (Call::Release(b), Reply::Is(State::Refused)),
            (Call::Adjust(key, -7), Reply::Units(0)),
            (Call::Adjust(key, -7), Reply::Units(0)),
            (Call::Release(a), Reply::Is(State::Released)),
            (Call::Release(a), Reply::Is(State::Released)),
            (Call::Read, Reply::Units(5)),
            (Call::Reserve(a, 5), Reply::Rejected(Some(State::Released))),
        ]));
    }

    #[test]
    fn product_model_rejects_planted_faults() {
        let (a, b, key) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let held = |id| (Call::Reserve(id, 8), Reply::Is(State::Held));
        let released = || (Call::Release(a), Reply::Is(State::Released));
        for (fault, calls) in [
            ("sold twice", vec![held(a), held(b)]),
            ("stale read", vec![held(a), (Call::Read, Reply::Units(UNITS))]),
            ("lost reservation", vec![held(a), (Call::Confirm(a), Reply::Rejected(None))]),
            ("released twice", vec![held(a), released(), released(), (Call::Read, Reply::Units(UNITS + 8))]),
            ("no tombstone", vec![released(), held(a)]),
            ("adjusted twice", vec![(Call::Adjust(key, 1), Reply::Units(13)), (Call::Adjust(key, 1), Reply::Units(14))]),
            ("refused in vain", vec![(Call::Reserve(a, 12), Reply::InsufficientStock)]),
            ("confirmed after release", vec![held(a), released(), (Call::Confirm(a), Reply::Is(State::Confirmed))]),
        ] {
            assert!(!is_explained(calls), "{fault}");
        }
    }
}
