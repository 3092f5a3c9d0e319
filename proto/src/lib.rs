//! The contracts in `proto/palisade`, as Rust: nothing here is written by hand.
#![expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

/// `palisade.products.v1`: products and the stock of each.
pub mod products {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("palisade.products.v1");
    }
}

/// `palisade.orders.v1`: orders and their saga.
pub mod orders {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("palisade.orders.v1");
    }
}

/// The encoded `FileDescriptorSet` of both packages, for server reflection and for the method tables.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
