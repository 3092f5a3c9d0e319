//! Idempotency: which calls may reach a server twice.

use std::sync::Arc;

use http::request;
use rustc_hash::FxHashSet;

use crate::{protocol::Protocol, streams::ResponseKind};

/// Marks a request, in its extensions, that the server deduplicates by an idempotency key.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKeyed;

/// What is known of the gRPC methods of a target, by path: which may be retried, and which have a
/// stream as their response. Cheap to clone.
///
/// A method that is not listed is never retried. Its response may be a stream, so that the attempt
/// timeout limits only the wait for its head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodContracts {
    pub(super) idempotent: Arc<FxHashSet<String>>,
    /// Methods, idempotent or not, whose response is one message.
    pub(super) unary: Arc<FxHashSet<String>>,
    /// Methods, idempotent or not, whose response is a stream.
    pub(super) streams: Arc<FxHashSet<String>>,
}

impl MethodContracts {
    /// Lists unary methods that may not be retried.
    pub fn unary<T: Into<String>>(paths: impl IntoIterator<Item = T>) -> Self {
        Self { unary: Arc::new(paths.into_iter().map(Into::into).collect()), ..Self::default() }
    }

    /// Returns the kind of the response of the method at this path.
    pub fn response_kind(&self, path: &str) -> ResponseKind {
        if self.streams.contains(path) {
            ResponseKind::Stream
        } else if self.unary.contains(path) {
            ResponseKind::Unary
        } else {
            ResponseKind::Undeclared
        }
    }
}

/// Idempotency rule of a target.
#[derive(Debug)]
pub(super) enum IdempotencyPolicy {
    /// These gRPC methods may be retried.
    Grpc(MethodContracts),
    /// Safe HTTP methods may be retried (RFC 9110 §9.2.1). PUT and DELETE are idempotent, but their
    /// answer is not: repeated, a precondition fails or the resource is gone.
    Http,
}

impl IdempotencyPolicy {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Grpc(_) => Protocol::Grpc,
            Self::Http => Protocol::Http,
        }
    }

    /// Returns whether this request may be sent twice.
    pub(super) fn allows(&self, request: &request::Parts) -> bool {
        let by_method = match self {
            Self::Grpc(methods) => methods.idempotent.contains(request.uri.path()),
            Self::Http => request.method.is_safe(),
        };
        by_method || request.extensions.get::<IdempotencyKeyed>().is_some()
    }
}

impl<T: Into<String>> FromIterator<T> for MethodContracts {
    /// Collects the paths of unary methods that may be retried, such as `/package.Service/Method`.
    fn from_iter<I: IntoIterator<Item = T>>(paths: I) -> Self {
        let paths: Arc<FxHashSet<String>> = Arc::new(paths.into_iter().map(Into::into).collect());
        Self { idempotent: paths.clone(), unary: paths, streams: Arc::default() }
    }
}
