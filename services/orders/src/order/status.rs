//! Order statuses and the transitions that each role may make.

use std::{fmt, str::FromStr};

use super::Role;

/// Status of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Accepted; the stock is not reserved yet.
    Pending,
    /// Stock is reserved; names and prices are known.
    ProductReserved,
    /// The reservation is confirmed and permanent.
    Confirmed,
    /// The order could not be fulfilled.
    Failed,
    /// Delivered.
    Completed,
    /// Cancelled by the user or an admin.
    Cancelled,
}

/// Reason why an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureReason {
    /// Not enough stock of a product.
    InsufficientStock,
    /// A product does not exist.
    UnknownProduct,
    /// A product is not for sale.
    ProductInactive,
    /// The reservation expired or was released before it was confirmed.
    ReservationExpired,
    /// No response from products before the saga's deadline.
    ProductsUnavailable,
    /// The total exceeds the maximum that the customer accepts.
    PriceChanged,
}

/// A name that is not in a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {0}")]
pub struct UnknownName(pub(super) &'static str);

impl Status {
    /// All statuses.
    pub const ALL: [Self; 6] = [Self::Pending, Self::ProductReserved, Self::Confirmed, Self::Failed, Self::Completed, Self::Cancelled];

    /// Name on the wire and in the database.
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

    /// Whether no transition leaves this status.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Cancelled)
    }

    /// Whether the saga has not finished yet.
    pub fn is_in_progress(self) -> bool {
        matches!(self, Self::Pending | Self::ProductReserved)
    }

    /// Returns the statuses that `by` may change this status to.
    pub fn allowed_transitions(self, by: Role) -> &'static [Self] {
        match (self, by) {
            (Self::Pending, Role::Saga) => &[Self::ProductReserved, Self::Failed],
            (Self::ProductReserved, Role::Saga) => &[Self::Confirmed, Self::Failed],
            (Self::Pending | Self::ProductReserved, Role::Owner | Role::Admin) | (Self::Confirmed, Role::Owner) => &[Self::Cancelled],
            (Self::Confirmed, Role::Admin) => &[Self::Completed, Self::Cancelled],
            (Self::Confirmed, Role::Saga) | (Self::Failed | Self::Completed | Self::Cancelled, _) => &[],
        }
    }

    /// Whether any role may change this status to `to`.
    pub fn can_become(self, to: Self) -> bool {
        Role::ALL.into_iter().any(|by| self.allowed_transitions(by).contains(&to))
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
    /// All failure reasons.
    pub const ALL: [Self; 6] = [
        Self::InsufficientStock,
        Self::UnknownProduct,
        Self::ProductInactive,
        Self::ReservationExpired,
        Self::ProductsUnavailable,
        Self::PriceChanged,
    ];

    /// Slug on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient_stock",
            Self::UnknownProduct => "unknown_product",
            Self::ProductInactive => "product_inactive",
            Self::ReservationExpired => "reservation_expired",
            Self::ProductsUnavailable => "products_unavailable",
            Self::PriceChanged => "price_changed",
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
    fn legal_transitions_match_the_contract() {
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
    fn only_admins_complete_orders() {
        assert!(Status::Confirmed.allowed_transitions(Role::Admin).contains(&Status::Completed));
        assert_eq!(Status::Confirmed.allowed_transitions(Role::Owner), [Status::Cancelled]);
    }

    #[test]
    fn terminal_statuses_have_no_transitions() {
        for status in Status::ALL {
            assert_eq!(status.is_terminal(), Status::ALL.into_iter().all(|to| !status.can_become(to)), "{status}");
        }
    }

    #[test]
    fn names_parse_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for reason in FailureReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("pending".parse::<Status>().is_err());
    }
}
