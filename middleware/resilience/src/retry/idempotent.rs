//! Idempotency: which calls may reach a server twice.

use std::sync::Arc;

use http::request;
use prost::Message;
use prost_types::{FileDescriptorSet, MethodOptions, method_options::IdempotencyLevel};
use rustc_hash::FxHashSet;

use crate::respond::Protocol;

/// Marks a request, in its extensions, that the server deduplicates by an idempotency key.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKeyed;

/// Paths of the gRPC methods that may be retried. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdempotentMethods {
    paths: Arc<FxHashSet<String>>,
    /// Paths of the methods, idempotent or not, whose response is a stream.
    streams: Arc<FxHashSet<String>>,
}

impl IdempotentMethods {
    /// Reads the methods with an `idempotency_level` from an encoded `FileDescriptorSet`.
    pub fn from_descriptors(file_descriptor_set: &[u8]) -> Result<Self, prost::DecodeError> {
        let (mut paths, mut streams) = (FxHashSet::default(), FxHashSet::default());
        for file in FileDescriptorSet::decode(file_descriptor_set)?.file {
            for service in &file.service {
                for method in &service.method {
                    let level = method.options.as_ref().map_or(IdempotencyLevel::IdempotencyUnknown, MethodOptions::idempotency_level);
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    if method.server_streaming() {
                        streams.insert(path.clone());
                    }
                    if level != IdempotencyLevel::IdempotencyUnknown {
                        paths.insert(path);
                    }
                }
            }
        }
        Ok(Self { paths: Arc::new(paths), streams: Arc::new(streams) })
    }

    /// Returns whether the method at this path is server-streaming.
    pub fn is_stream(&self, path: &str) -> bool {
        self.streams.contains(path)
    }
}

/// Idempotency rule of a target.
#[derive(Debug)]
pub(super) enum IdempotencyPolicy {
    /// These gRPC methods may be retried.
    Grpc(IdempotentMethods),
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
            Self::Grpc(methods) => methods.paths.contains(request.uri.path()),
            Self::Http => request.method.is_safe(),
        };
        by_method || request.extensions.get::<IdempotencyKeyed>().is_some()
    }
}

impl<T: Into<String>> FromIterator<T> for IdempotentMethods {
    /// Collects paths such as `/package.Service/Method`.
    fn from_iter<I: IntoIterator<Item = T>>(paths: I) -> Self {
        Self { paths: Arc::new(paths.into_iter().map(Into::into).collect()), streams: Arc::default() }
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
            ],
            ..ServiceDescriptorProto::default()
        };
        let file = FileDescriptorProto { package: Some("p.v1".to_owned()), service: vec![service], ..FileDescriptorProto::default() };
        let methods = IdempotentMethods::from_descriptors(&FileDescriptorSet { file: vec![file] }.encode_to_vec()).unwrap();
        assert_eq!(methods, ["/p.v1.S/Get", "/p.v1.S/Put"].into_iter().collect());
    }
}
