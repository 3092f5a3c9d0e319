//! Audit of a store.

/// Maximum number of violations that one audit logs; `GET /invariants` lists all.
const MAX_LOGGED_VIOLATIONS: usize = 10;

/// Returns the violations that an audit logs, and the number of the others.
pub fn logged_violations<T>(violations: &[T]) -> (&[T], usize) {
    let logged = violations.len().min(MAX_LOGGED_VIOLATIONS);
    (&violations[..logged], violations.len() - logged)
}
