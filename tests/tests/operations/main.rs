//! Work of operators on the data of a running shop: erasure of a subject, backup and restore.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod backup;
mod erasure;
