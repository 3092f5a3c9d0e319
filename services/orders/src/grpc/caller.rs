//! Callers: the users that they may act for, and the actors that the history records.

use palisade_middleware::{
    auth::{InvalidSubject, Principal, Subject},
    rejection::{Rejection, Violation, reasons},
};

use crate::order::{Actor, Role};

/// Scope that grants access to the orders of all users.
pub(super) const ADMIN: &str = "orders:admin";

/// Returns the caller as the actor of a change of an order that it may see.
pub(super) fn actor(principal: &Principal) -> Actor {
    actor_in(principal, if principal.has_scope(ADMIN) { Role::Admin } else { Role::Owner })
}

/// Returns the caller as the creator of an order of `owner`.
pub(super) fn creator(principal: &Principal, owner: &Subject) -> Actor {
    actor_in(principal, Role::towards(owner, &principal.subject))
}

fn actor_in(principal: &Principal, role: Role) -> Actor {
    Actor { role, subject: Some(principal.subject.clone()), service: principal.actor.clone().map(Into::into) }
}

/// Returns the user whose orders the call concerns: the caller, or any user for an admin. The inner
/// error is a `userId` that is no subject.
pub(super) fn effective_user_id(principal: &Principal, user_id: &str) -> Result<Result<Subject, Violation>, Rejection> {
    match user_id {
        "" => Ok(Ok(principal.subject.clone())),
        own if own == principal.subject.as_str() => Ok(Ok(principal.subject.clone())),
        other if principal.has_scope(ADMIN) => {
            let code = |error: &InvalidSubject| match error {
                InvalidSubject::Empty => "required",
                InvalidSubject::TooLong => "too_long",
                InvalidSubject::ControlCharacter => "invalid_characters",
            };
            Ok(Subject::parse(other).map_err(|error| Violation::new("userId", code(&error), error.to_string())))
        }
        _ => Err(insufficient_scope("acting for another user requires the scope orders:admin")),
    }
}

pub(super) fn insufficient_scope(detail: &'static str) -> Rejection {
    Rejection::new(&reasons::INSUFFICIENT_SCOPE, detail)
}
