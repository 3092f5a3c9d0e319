//! Sequential model of an order that is created with one idempotency key. The saga moves it at
//! times of its own; a reply shows where it is.

use palisade_tests::linearizability::Model;

/// Model of the order of one idempotency key.
#[derive(Debug)]
pub(crate) struct Order;

/// Call to the gateway.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// Creates the order, once: every call has the same key and body.
    Create,
    Cancel,
    Read,
}

/// Definitive reply. Errors that prove nothing are no replies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// The order of the first create. Its status is that of a read: the reply waits for the saga.
    Created(String),
    /// The order of an earlier create.
    Replayed(String),
    /// The status and version after a cancellation, or of a read.
    Is(Status, u64),
    /// The order cannot be cancelled.
    IllegalTransition,
}

/// Status of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    Pending,
    Reserved,
    Confirmed,
    Failed,
    Cancelled,
}

/// Latest knowledge about an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    /// `None` if no reply had it yet.
    id: Option<String>,
    status: Status,
    /// Version at least. 0 if no reply had it yet.
    version: u64,
}

impl Status {
    /// Parses the status of the API.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "PENDING" => Self::Pending,
            "PRODUCT_RESERVED" => Self::Reserved,
            "CONFIRMED" => Self::Confirmed,
            "FAILED" => Self::Failed,
            "CANCELLED" => Self::Cancelled,
            _ => return None,
        })
    }

    /// Whether the saga can move an order from here to `other`, or leaves it here.
    fn leads_to(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Pending => matches!(other, Self::Reserved | Self::Confirmed | Self::Failed),
                Self::Reserved => matches!(other, Self::Confirmed | Self::Failed),
                Self::Confirmed | Self::Failed | Self::Cancelled => false,
            }
    }
}

impl Known {
    /// Returns the order at `status` and `version`, unless it has passed them.
    fn seen_at(&self, status: Status, version: u64) -> Option<Self> {
        let is_later = version > self.version && self.status.leads_to(status);
        let is_same = version == self.version && self.status == status;
        (is_later || is_same).then(|| Self { status, version, ..self.clone() })
    }

    fn cancelled(&self) -> Option<Self> {
        (self.status != Status::Failed).then(|| Self { status: Status::Cancelled, ..self.clone() })
    }
}

impl Model for Order {
    type State = Option<Known>;
    type Call = Call;
    type Reply = Reply;

    fn step(order: &Option<Known>, call: &Call, reply: Option<&Reply>) -> Option<Option<Known>> {
        let created = |id: Option<&String>| Known { id: id.cloned(), status: Status::Pending, version: 0 };
        let next = match (order, call, reply) {
            (_, Call::Read, None) | (None, Call::Cancel, None) | (Some(_), Call::Create, None) => return Some(order.clone()),
            (None, Call::Create, None) => created(None),
            (Some(known), Call::Cancel, None) => known.cancelled().unwrap_or_else(|| known.clone()),
            // A replay as the first one: the gateway has repeated a call without a reply.
            (None, Call::Create, Some(Reply::Created(id) | Reply::Replayed(id))) => created(Some(id)),
            (Some(known), Call::Create, Some(Reply::Replayed(id))) if known.id.as_ref().is_none_or(|known| known == id) => {
                Known { id: Some(id.clone()), ..known.clone() }
            }
            (Some(known), Call::Read, Some(Reply::Is(status, version))) => known.seen_at(*status, *version)?,
            // The version grows with the first cancellation only.
            (Some(known), Call::Cancel, Some(Reply::Is(Status::Cancelled, version))) if *version >= known.version => {
                Known { version: *version, ..known.cancelled()? }
            }
            (Some(known), Call::Cancel, Some(Reply::IllegalTransition)) if known.status.leads_to(Status::Failed) => {
                Known { status: Status::Failed, ..known.clone() }
            }
            _ => return None,
        };
        Some(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use palisade_tests::linearizability::{Operation, check};

    use super::*;

    /// Verdict about calls one after the other.
    fn is_explained(calls: impl IntoIterator<Item = (Call, Option<Reply>)>) -> bool {
        let operation = |(index, (call, reply)): (u64, (Call, Option<Reply>))| {
            let replied_at = reply.is_some().then_some(2 * index + 1);
            Operation { call, reply, called_at: 2 * index, replied_at }
        };
        check::<Order>(&(0..).zip(calls).map(operation).collect::<Vec<_>>()).is_ok()
    }

    fn created() -> (Call, Option<Reply>) {
        (Call::Create, Some(Reply::Created("a".to_owned())))
    }

    fn replayed(id: &str) -> (Call, Option<Reply>) {
        (Call::Create, Some(Reply::Replayed(id.to_owned())))
    }

    fn read(status: Status, version: u64) -> (Call, Option<Reply>) {
        (Call::Read, Some(Reply::Is(status, version)))
    }

    fn cancelled(version: u64) -> (Call, Option<Reply>) {
        (Call::Cancel, Some(Reply::Is(Status::Cancelled, version)))
    }

    #[test]
    fn order_model_accepts_the_contract() {
        use Status::{Cancelled, Confirmed, Failed, Pending, Reserved};
        for calls in [
            vec![created(), read(Pending, 1), read(Reserved, 2), read(Confirmed, 3), cancelled(4), cancelled(4), read(Cancelled, 4)],
            vec![(Call::Create, None), replayed("a"), read(Confirmed, 3), replayed("a")],
            vec![created(), (Call::Cancel, None), read(Confirmed, 3), read(Cancelled, 4)],
            vec![created(), (Call::Cancel, Some(Reply::IllegalTransition)), read(Failed, 2)],
        ] {
            assert!(is_explained(calls.clone()), "{calls:?}");
        }
    }

    #[test]
    fn order_model_rejects_planted_faults() {
        use Status::{Cancelled, Confirmed, Failed, Pending};
        for (fault, calls) in [
            ("stale read", vec![created(), read(Confirmed, 3), read(Pending, 1)]),
            ("two orders of one key", vec![created(), replayed("b")]),
            ("created twice", vec![created(), created()]),
            ("lost cancellation", vec![created(), cancelled(4), read(Confirmed, 3)]),
            ("cancelled without a request", vec![created(), read(Confirmed, 3), read(Cancelled, 4)]),
            ("version with two statuses", vec![created(), read(Pending, 2), read(Confirmed, 2)]),
            ("terminal status left", vec![created(), read(Failed, 2), cancelled(3)]),
            ("confirmed, then failed", vec![created(), read(Confirmed, 3), read(Failed, 4)]),
        ] {
            assert!(!is_explained(calls), "{fault}");
        }
    }
}
