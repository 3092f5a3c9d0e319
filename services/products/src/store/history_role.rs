//! Role of the histories of the products.

use uuid::Uuid;

use super::{database::Error, instrumented::instrumented_role};
use crate::product::Change;

instrumented_role! {
    /// Histories of the products. Every change of a catalogue field adds one entry, in the step
    /// that makes it.
    pub trait HistoryStore {
        /// Returns the latest changes of a product, at most
        /// [`MAX_HISTORY`](crate::product::MAX_HISTORY), newest first, or `None` if the product
        /// does not exist.
        async fn history(&self, id: Uuid) -> Result<Option<Vec<Change>>, Error> = call("history", "products");
    }
}
