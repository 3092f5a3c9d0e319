//! Invariants of the system: those of each service after every write, those of both at the end.

pub mod at_end;
mod orders;
mod products;

pub use orders::OrdersCheck;
pub use products::ProductsCheck;

/// Parses the rows of a table, which a query has collected into a JSON array.
fn parse<T: serde::de::DeserializeOwned>(rows: &str) -> sqlx::Result<Vec<T>> {
    serde_json::from_str(rows).map_err(|error| sqlx::Error::Decode(error.into()))
}
