//! Role of the stock ledger.

use palisade_middleware::auth::Subject;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{database::Error, instrumented::instrumented_role, roles::IdempotencyKey};
use crate::stock_ledger::{AdjustOutcome, Adjustment, LedgerPage, LedgerQuery};

instrumented_role! {
    /// Stock ledger. Every change of a product's supply adds one entry, in the step that makes it.
    pub trait LedgerStore {
        /// Changes the available units and records the change. Repeating the same `key` returns the
        /// stored response for [`KEY_TTL`](super::KEY_TTL): an adjustment, or too few units.
        async fn adjust(
            &self,
            adjustment: Adjustment,
            key: Option<IdempotencyKey>,
            actor: Subject,
            now: OffsetDateTime,
        ) -> Result<AdjustOutcome, Error> = change("adjust", "stock_adjustments");

        /// Returns one page of the ledger of a product, or `None` if the product does not exist.
        async fn ledger(&self, query: LedgerQuery) -> Result<Option<LedgerPage>, Error> = call("list", "stock_adjustments");

        /// Examines up to `limit` products after the id `after`: moves the entries that a crash
        /// left in a product to the ledger, and records changes by a replica of a release without
        /// a ledger. Returns the last examined product, or `None` if none is left.
        async fn reconcile_ledger(&self, after: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error>
            = call("reconcile", "stock_adjustments");

        /// Replaces up to about `limit` entries from before `before` by one `opening` per product.
        /// Returns the number of replaced entries.
        async fn fold_ledger(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> = call("fold", "stock_adjustments");
    }
}
