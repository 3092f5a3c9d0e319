//! The contracts in `proto/palisade`, and what we need of etcd's, as Rust: nothing here is written by hand.
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

/// What is called of etcd's v3 API.
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The encoded `FileDescriptorSet` of our own packages, for server reflection and for the method tables.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
