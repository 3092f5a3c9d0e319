//! What the tests of whole stacks ask of a refusal.

use palisade_middleware::{rejection::Retry, retry};
use tonic::Status;
use tonic_types::StatusExt;

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

pub(crate) fn advice(status: &Status) -> Retry {
    retry::pushback(status.metadata().as_ref())
}
