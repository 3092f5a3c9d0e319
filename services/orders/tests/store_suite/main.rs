//! Store test suite, run against SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

mod batches;
mod cancellation_safety;
mod claims;
mod create;
mod database;
mod erasure;
mod fulfilments;
mod history;
mod invariants;
mod list_filters;
mod outbox;
mod pool_metrics;
mod postgres;
mod queries;
mod retention;
mod revisions;
mod robustness;
mod sizes;
mod transitions;
mod upgrade;

/// Runs each case on a fresh database of each kind. Each test runs many cases because it starts a
/// server.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn sqlite() {
            $(
                eprintln!("case {}", stringify!($case));
                $case($crate::database::Database::sqlite().await).await;
            )*
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn postgres() {
            $(
                eprintln!("case {}", stringify!($case));
                $case($crate::database::Database::postgres().await).await;
            )*
        }
    };
}

use on_both;
