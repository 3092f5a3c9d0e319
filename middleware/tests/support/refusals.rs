//! Accessors for rejections in stack tests.

use palisade_middleware::{rejection::Retry, retry};
use tonic::Status;
use tonic_types::StatusExt;

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("ErrorInfo is present").reason
}

pub(crate) fn advice(status: &Status) -> Retry {
    retry::pushback(status.metadata().as_ref())
}
