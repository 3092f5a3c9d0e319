//! Work of operators on the data of a running shop: erasure of a subject.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod erasure;
