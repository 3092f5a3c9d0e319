//! Selection of the series that a graph draws.

use super::Query;

impl Query {
    /// Draws at most `limit` series: those with the highest maximum in the selected time range.
    /// Series that are 0 throughout are left out. If all are, one line at 0 stands for them.
    pub(crate) fn highest(&self, limit: usize) -> Self {
        let all = self.operand();
        let silent = match (self.legend_prefix, self.by.first()) {
            (None, Some(label)) => format!("label_replace(0 * max({all}), \"{label}\", \"none\", \"\", \"\")"),
            // The prefix is its name.
            _ => format!("0 * max({all})"),
        };
        self.drawn(format!("({all} and topk({limit}, max_over_time(({all})[$__range:$__rate_interval] @ end()) > 0)) or on () {silent}"))
    }

    /// Draws at most `limit` series: those with the lowest minimum in the selected time range.
    pub(crate) fn lowest(&self, limit: usize) -> Self {
        let all = self.operand();
        self.drawn(format!("{all} and bottomk({limit}, min_over_time(({all})[$__range:$__rate_interval] @ end()))"))
    }

    /// Keeps the series that were below 1 at some time of the selected range.
    pub(crate) fn failing(&self) -> Self {
        let all = self.operand();
        self.drawn(format!("{all} and min_over_time(({all})[$__range:$__rate_interval] @ end()) < 1"))
    }

    /// Number of lines that the labels permit: one without labels, three jobs, or unknown.
    pub(crate) fn known_lines(&self) -> Option<usize> {
        match self.by.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Some(1),
            ["job"] => Some(3),
            _ => None,
        }
    }

    /// Replaces the text. The result is complete: it is no operand.
    fn drawn(&self, promql: String) -> Self {
        self.clone().with(promql)
    }
}
