//! Invariants of the system: those of each service after every write, those of both at the end.

pub mod at_end;
mod orders;
mod products;

pub use orders::OrdersCheck;
pub use products::ProductsCheck;
