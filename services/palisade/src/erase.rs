//! `palisade erase`: erases the data of a subject from both stores and the archive, while the
//! services run or not.

use std::fmt::Write;

use anyhow::Context as _;
use clap::ArgMatches;
use palisade_middleware::{
    auth::Subject,
    config::{self, Invocation},
    redact,
    telemetry::{Telemetry, TrustBoundary},
};
use palisade_orders::erasure as orders;
use palisade_products::erasure as products;

use crate::{all_in_one, config::Config};

/// Erases `subject` from the stores that `options` configure. Returns a table of the counts, and
/// logs them without the subject.
pub(crate) fn run(subject: &str, options: &ArgMatches) -> anyhow::Result<String> {
    let subject = Subject::parse(subject).context("--subject")?;
    // Also from the messages of libraries.
    redact::register(subject.as_str());
    let Invocation::Run(mut config) = config::load::<Config>(options)?.invocation else {
        anyhow::bail!("--check-config and --health-check have no effect on erase");
    };
    config.set_default_stores();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let _telemetry = Telemetry::install(("palisade", &all_in_one::SERVICES), TrustBoundary::Public, &config.telemetry, false)?;
        // First, because it refuses a subject with orders in progress.
        let (pseudonym, orders) = palisade_orders::erase(&config.orders, &subject).await.context("orders")?;
        let products = palisade_products::erase(&config.products, &subject, &pseudonym).await.context("products")?;
        tracing::warn!(
            pseudonym = pseudonym.as_str(),
            orders = orders.orders,
            removals = orders.removals,
            history = orders.history,
            events = orders.events,
            keys = orders.keys,
            responses = orders.responses,
            archived = orders.archived,
            product_keys = products.keys,
            ledger_entries = products.entries,
            product_history = products.history,
            "operator erased the data of a subject"
        );
        table(&pseudonym, &orders, &products)
    })
}

fn table(pseudonym: &Subject, orders: &orders::Erased, products: &products::Erased) -> anyhow::Result<String> {
    let mut table = format!("{:<10}{:<44}{:>8}", "store", "data", "erased");
    for (store, data, count) in [
        ("orders", "orders with another owner", orders.orders),
        ("orders", "removals by the subject", orders.removals),
        ("orders", "history entries", orders.history),
        ("orders", "events", orders.events),
        ("orders", "idempotency keys", orders.keys),
        ("orders", "stored responses of other subjects", orders.responses),
        ("orders", "lines of the archive", orders.archived),
        ("products", "idempotency keys", products.keys),
        ("products", "entries of the stock ledger", products.entries),
        ("products", "history entries", products.history),
    ] {
        write!(table, "\n{store:<10}{data:<44}{count:>8}")?;
    }
    write!(table, "\n\npseudonym {}", pseudonym.as_str())?;
    Ok(table)
}
