//! Selection of the series that a graph draws.

use super::Query;

impl Query {
    /// Draws at most `limit` series: those with the highest maximum in the selected time range.
    /// Series that are 0 throughout are left out. If all are, one line at 0 stands for them.
    pub(crate) fn highest(&self, limit: usize) -> Self {
        let all = self.operand();
        let label = self.by.first().map_or("job", String::as_str);
        self.drawn(format!(
            "({all} and topk({limit}, max_over_time(({all})[$__range:$__rate_interval] @ end()) > 0)) \
             or on () label_replace(0 * max({all}), \"{label}\", \"none\", \"\", \"\")"
        ))
    }

    /// Draws at most `limit` series: those with the lowest minimum in the selected time range.
    pub(crate) fn lowest(&self, limit: usize) -> Self {
        let all = self.operand();
        self.drawn(format!("{all} and bottomk({limit}, min_over_time(({all})[$__range:$__rate_interval] @ end()))"))
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
