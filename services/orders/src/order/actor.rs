//! Actors of changes: the role that permits a change, the user and the calling service.

use std::{borrow::Cow, str::FromStr};

use palisade_middleware::auth::Subject;

use super::UnknownName;

/// Role in which a change is made. It decides which status changes are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The saga.
    Saga,
    /// The user who owns the order.
    Owner,
    /// A caller with the scope `orders:admin`.
    Admin,
}

/// Actor of a change, as the history records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Role of the actor.
    pub role: Role,
    /// User that the change is made for. `None` for the saga.
    pub subject: Option<Subject>,
    /// Service that makes the change, as authenticated. `None` for a user that calls directly.
    pub service: Option<Cow<'static, str>>,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Saga, Self::Owner, Self::Admin];

    /// Name in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Owner => "owner",
            Self::Admin => "admin",
        }
    }

    /// Role of `subject` towards an order of `owner`, where only an administrator may act for
    /// another user.
    pub fn towards(owner: &Subject, subject: &Subject) -> Self {
        if owner == subject { Self::Owner } else { Self::Admin }
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|role| role.as_str() == name).ok_or(UnknownName("role"))
    }
}

impl Actor {
    /// The saga, which this service runs.
    pub fn saga() -> Self {
        Self { role: Role::Saga, subject: None, service: Some(Cow::Borrowed("orders")) }
    }
}
