//! Set operations on the series of two queries.

use super::Query;

impl Query {
    /// Keeps series without a match in `other`.
    pub fn unless(self, other: &Self) -> Self {
        self.set_operation("unless", other)
    }

    /// Keeps series whose `job` is not in `other`.
    pub fn unless_job(self, other: &Self) -> Self {
        self.set_operation("unless on (job)", other)
    }

    /// Keeps series with a match in `other`.
    pub fn and(self, other: &Self) -> Self {
        self.set_operation("and", other)
    }

    /// Adds the series of `other` that have no match.
    pub fn or(self, other: &Self) -> Self {
        self.set_operation("or", other)
    }

    fn set_operation(self, operator: &str, other: &Self) -> Self {
        let promql = format!("{} {operator} {}", self.operand(), other.operand());
        self.with(promql)
    }
}
