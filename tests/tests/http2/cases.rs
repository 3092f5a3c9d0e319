//! Cases by section.

mod connection;
mod flow_control;
mod frames;
mod header_blocks;
mod hpack;
mod requests;
mod settings;
mod streams;

use crate::case::Case;

/// Returns all cases.
pub(crate) fn all() -> Vec<Case> {
    let sections = [
        connection::cases(),
        frames::cases(),
        streams::cases(),
        settings::cases(),
        flow_control::cases(),
        header_blocks::cases(),
        requests::cases(),
        hpack::cases(),
    ];
    sections.into_iter().flatten().collect()
}
