//! Idempotency: which calls may reach a server twice.

use std::sync::Arc;

use http::request;
use prost::Message;
use prost_types::{FileDescriptorSet, MethodOptions, method_options::IdempotencyLevel};
use rustc_hash::FxHashSet;

use crate::{respond::Protocol, streams::ResponseKind};

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
    idempotent: Arc<FxHashSet<String>>,
    /// Methods, idempotent or not, whose response is one message.
    unary: Arc<FxHashSet<String>>,
    /// Methods, idempotent or not, whose response is a stream.
    streams: Arc<FxHashSet<String>>,
}

impl MethodContracts {
    /// Reads the methods of an encoded `FileDescriptorSet`. Those with an `idempotency_level` may
    /// be retried.
    pub fn from_descriptors(file_descriptor_set: &[u8]) -> Result<Self, prost::DecodeError> {
        let mut contracts = [(); 3].map(|()| FxHashSet::default());
        let [idempotent, unary, streams] = &mut contracts;
        for file in FileDescriptorSet::decode(file_descriptor_set)?.file {
            for service in &file.service {
                for method in &service.method {
                    let level = method.options.as_ref().map_or(IdempotencyLevel::IdempotencyUnknown, MethodOptions::idempotency_level);
                    let package = if file.package().is_empty() { String::new() } else { format!("{}.", file.package()) };
                    let path = format!("/{package}{}/{}", service.name(), method.name());
                    if method.server_streaming() { &mut *streams } else { &mut *unary }.insert(path.clone());
                    if level != IdempotencyLevel::IdempotencyUnknown {
                        idempotent.insert(path);
                    }
                }
            }
        }
        let [idempotent, unary, streams] = contracts.map(Arc::new);
        Ok(Self { idempotent, unary, streams })
    }

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

#[cfg(test)]
mod tests {
    use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;

    #[test]
    fn idempotent_methods_come_from_descriptors() {
        let method = |name: &str, level: Option<IdempotencyLevel>| MethodDescriptorProto {
            name: Some(name.to_owned()),
            options: level.map(|level| MethodOptions { idempotency_level: Some(level.into()), ..MethodOptions::default() }),
            ..MethodDescriptorProto::default()
        };
        let service = ServiceDescriptorProto {
            name: Some("S".to_owned()),
            method: vec![
                method("Get", Some(IdempotencyLevel::NoSideEffects)),
                method("Put", Some(IdempotencyLevel::Idempotent)),
                method("Post", None),
                method("Patch", Some(IdempotencyLevel::IdempotencyUnknown)),
                MethodDescriptorProto { server_streaming: Some(true), ..method("Watch", None) },
            ],
            ..ServiceDescriptorProto::default()
        };
        for (package, prefix) in [(Some("p.v1".to_owned()), "/p.v1.S"), (None, "/S")] {
            let file = FileDescriptorProto { package, service: vec![service.clone()], ..FileDescriptorProto::default() };
            let methods = MethodContracts::from_descriptors(&FileDescriptorSet { file: vec![file] }.encode_to_vec()).unwrap();
            assert_eq!(*methods.idempotent, ["Get", "Put"].map(|name| format!("{prefix}/{name}")).into_iter().collect());
            for (name, kind) in [("Post", ResponseKind::Unary), ("Watch", ResponseKind::Stream), ("Other", ResponseKind::Undeclared)] {
                assert_eq!(methods.response_kind(&format!("{prefix}/{name}")), kind, "{prefix}/{name}");
            }
        }
    }
}
