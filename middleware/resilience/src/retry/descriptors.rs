//! Method contracts from protobuf descriptors.

use std::sync::Arc;

use prost::Message;
use prost_types::{FileDescriptorSet, MethodOptions, method_options::IdempotencyLevel};
use rustc_hash::FxHashSet;

use super::MethodContracts;

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
}

#[cfg(test)]
mod tests {
    use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;
    use crate::streams::ResponseKind;

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
