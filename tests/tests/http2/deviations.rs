//! Deviations of the HTTP/2 implementation (the crate `h2`) from the RFC. A deviation that is gone
//! fails the suite. Error codes that are too general are accepted by `Expected::allows`.

use crate::case::Outcome;

/// Every port: they share the implementation.
const ALL: &[&str] = &["gateway", "products", "orders"];

/// Reaction that the RFC does not allow.
#[derive(Debug)]
pub(crate) struct Deviation {
    pub(crate) case: &'static str,
    pub(crate) ports: &'static [&'static str],
    pub(crate) outcome: Outcome,
}

pub(crate) const DEVIATIONS: &[Deviation] = &[
    // The settings are awaited, but other frames are handled before.
    Deviation { case: "preface without SETTINGS", ports: ALL, outcome: Outcome::Open },
    // Pseudo-headers in trailers are dropped.
    Deviation { case: "pseudo-header in trailers", ports: ALL, outcome: Outcome::Response { is_ok: true } },
];
