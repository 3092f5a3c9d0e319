//! Generated Rust code of the contracts in `proto/palisade`, their size limits and their rejection
//! reasons.
#![forbid(unsafe_code)]
#![expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

pub mod page;
pub mod reasons;

/// `palisade.products.v1`: products and their stock.
pub mod products {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("palisade.products.v1");
    }
}

/// `palisade.orders.v1`: orders and their sagas.
pub mod orders {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("palisade.orders.v1");
    }
}

/// `palisade.preconditions.v1`: conditions on the version of a resource.
pub mod preconditions {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("palisade.preconditions.v1");
    }
}

/// Encoded `FileDescriptorSet` of the Palisade packages, for server reflection and the method
/// tables.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
