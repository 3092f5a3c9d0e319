//! What every store does: one suite, run against `SQLite` and against `PostgreSQL`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod auditing;
mod changing;
mod creating;
mod database;
mod leaving;
mod pooling;
mod postgres;
mod reading;
mod telling;
mod working;

/// Runs each case on a fresh database of each kind. A few tests with many cases, because each starts a server.
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
