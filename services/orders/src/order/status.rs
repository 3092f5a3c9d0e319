//! The statuses of an order, and who may move it from which to which.

use std::{fmt, str::FromStr};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Accepted; whether stock is reserved is not known yet.
    Pending,
    /// Stock is held, names and prices are copied.
    ProductReserved,
    /// The stock is the order's for good.
    Confirmed,
    /// It could not be fulfilled.
    Failed,
    /// It was delivered.
    Completed,
    /// The user or an admin took it back.
    Cancelled,
}

/// Who asks for a change of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The machinery of this service.
    Saga,
    /// The user whose order it is.
    Owner,
    /// Whoever has the scope `orders:admin`.
    Admin,
}

/// Why an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureReason {
    /// Not enough units of a product.
    InsufficientStock,
    /// A product does not exist.
    UnknownProduct,
    /// A product is not for sale.
    ProductInactive,
    /// The hold ran out or was given back before it was confirmed.
    ReservationExpired,
    /// No answer of products within the saga's deadline.
    ProductsUnavailable,
}

/// A name that is none of a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {0}")]
pub struct UnknownName(&'static str);

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] = [Self::Pending, Self::ProductReserved, Self::Confirmed, Self::Failed, Self::Completed, Self::Cancelled];

    /// The name on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::ProductReserved => "PRODUCT_RESERVED",
            Self::Confirmed => "CONFIRMED",
            Self::Failed => "FAILED",
            Self::Completed => "COMPLETED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Cancelled)
    }

    /// What `by` may make of an order with this status.
    pub fn allowed_transitions(self, by: Actor) -> &'static [Self] {
        match (self, by) {
            (Self::Pending, Actor::Saga) => &[Self::ProductReserved, Self::Failed],
            (Self::ProductReserved, Actor::Saga) => &[Self::Confirmed, Self::Failed],
            (Self::Pending | Self::ProductReserved, Actor::Owner | Actor::Admin) | (Self::Confirmed, Actor::Owner) => &[Self::Cancelled],
            (Self::Confirmed, Actor::Admin) => &[Self::Completed, Self::Cancelled],
            (Self::Confirmed, Actor::Saga) | (Self::Failed | Self::Completed | Self::Cancelled, _) => &[],
        }
    }

    /// Whether anybody may move an order from this status to `to`.
    pub fn can_become(self, to: Self) -> bool {
        [Actor::Saga, Actor::Owner, Actor::Admin].into_iter().any(|by| self.allowed_transitions(by).contains(&to))
    }
}

impl Actor {
    /// The name in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Owner => "owner",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|status| status.as_str() == name).ok_or(UnknownName("order status"))
    }
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::InsufficientStock, Self::UnknownProduct, Self::ProductInactive, Self::ReservationExpired, Self::ProductsUnavailable];

    /// The slug on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient_stock",
            Self::UnknownProduct => "unknown_product",
            Self::ProductInactive => "product_inactive",
            Self::ReservationExpired => "reservation_expired",
            Self::ProductsUnavailable => "products_unavailable",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FailureReason {
    type Err = UnknownName;

    fn from_str(slug: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == slug).ok_or(UnknownName("failure reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_moves_of_the_contract_are_legal() {
        use Status::{Cancelled, Completed, Confirmed, Failed, Pending, ProductReserved};
        let legal = [
            (Pending, ProductReserved),
            (Pending, Failed),
            (Pending, Cancelled),
            (ProductReserved, Confirmed),
            (ProductReserved, Failed),
            (ProductReserved, Cancelled),
            (Confirmed, Completed),
            (Confirmed, Cancelled),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(from.can_become(to), legal.contains(&(from, to)), "{from} to {to}");
            }
        }
    }

    #[test]
    fn only_an_admin_completes() {
        assert!(Status::Confirmed.allowed_transitions(Actor::Admin).contains(&Status::Completed));
        assert_eq!(Status::Confirmed.allowed_transitions(Actor::Owner), [Status::Cancelled]);
    }

    #[test]
    fn a_terminal_status_has_no_next() {
        for status in Status::ALL {
            assert_eq!(status.is_terminal(), Status::ALL.into_iter().all(|to| !status.can_become(to)), "{status}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for reason in FailureReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("pending".parse::<Status>().is_err());
    }
}
