//! Request extractors. Malformed input is rejected here with the error messages of the gateway.

use std::fmt::Display;

mod entity_tag;
mod idempotency_key;
mod json;
mod merge_patch;
mod parameters;
mod preconditions;
mod singletons;

pub(crate) use entity_tag::etag;
pub(crate) use idempotency_key::{IdempotencyKey, record_key_outcome, retryable_with_key};
pub(crate) use json::{Integer, Json, Object, non_null};
pub(crate) use merge_patch::{Member, MergePatch};
pub(crate) use parameters::{Id, Limit, Query, Uuid};
pub(crate) use preconditions::{NO_STORE, Preconditions, Read};
pub(crate) use singletons::{LAST_EVENT_ID, reject_repeated, single_value};

/// Maximum length of a field name quoted in an error, characters. Clients choose unknown names.
const MAX_NAME_CHARS: usize = 100;

/// Translates a serde error to a client message: the field and the expected type. Values are never
/// quoted.
fn describe_error<E: Display>(error: &serde_path_to_error::Error<E>, document: &str) -> String {
    let message = error.inner().to_string();
    // Removes the position that serde_json appends: the field path is more useful.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    // This message contains only the names of known fields.
    if let Some(name) = message.strip_prefix("duplicate field ") {
        return format!("{name} is repeated");
    }
    let path = error.path().to_string();
    let name = match path.as_str() {
        "." => document.to_owned(),
        path => format!("`{}`", path.chars().take(MAX_NAME_CHARS).collect::<String>()),
    };
    if message.starts_with("unknown field") {
        return format!("{name} is unknown");
    }
    match message.rsplit_once(", expected ") {
        Some((_, "i64" | "u32")) => format!("{name} must be an integer"),
        Some((_, "a sequence")) => format!("{name} must be an array"),
        Some((_, expected)) => format!("{name} must be {expected}"),
        None => format!("{name} is not valid"),
    }
}
