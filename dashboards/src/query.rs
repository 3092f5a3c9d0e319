//! PromQL query builder: catalog names, with the job and instance variables in every selector.
//!
//! The builder does not validate names. [`promql_check`](crate::promql_check) reports unknown
//! metrics and labels in the resulting text.

mod lines;
mod sets;

use std::ops::{Add, Div, Mul, Sub};

use palisade_middleware::metrics::Metric;

use crate::known_metrics::{catalog, exposed_label, is_target_metric};

/// Series selector of one metric.
#[must_use]
#[derive(Debug, Clone)]
pub struct Series {
    name: String,
    matchers: Vec<String>,
}

/// Query and its legend.
#[must_use]
#[derive(Debug, Clone)]
pub struct Query {
    promql: String,
    /// Contains a binary operator and needs parentheses as an operand.
    compound: bool,
    by: Vec<String>,
    legend_prefix: Option<&'static str>,
    absence_reason: Option<&'static str>,
}

/// Selects a metric by its catalog name.
pub fn metric(name: &str) -> Series {
    let known = catalog().into_iter().find(|metric| metric.name == name);
    Series { name: known.map_or_else(|| exposed_label(name), Metric::exposed), matchers: target_matchers() }
}

/// Selects an external metric by its Prometheus name.
pub fn external_metric(name: &str) -> Series {
    Series { name: name.to_owned(), matchers: if is_target_metric(name) { target_matchers() } else { Vec::new() } }
}

fn target_matchers() -> Vec<String> {
    ["job", "instance"].map(|label| format!("{label}=~\"${label}\"")).to_vec()
}

fn exposed_labels<const N: usize>(labels: [&str; N]) -> Vec<String> {
    labels.into_iter().map(exposed_label).collect()
}

impl Series {
    /// Selects the `_count` series of a histogram.
    pub fn count(self) -> Self {
        self.suffixed("_count")
    }

    /// Selects the `_sum` series of a histogram. Not for counting.
    pub fn sum(self) -> Self {
        self.suffixed("_sum")
    }

    /// Selects the `_bucket` series of a histogram.
    pub fn bucket(self) -> Self {
        self.suffixed("_bucket")
    }

    fn suffixed(mut self, suffix: &str) -> Self {
        self.name.push_str(suffix);
        self
    }

    /// Adds the matcher `label = value`.
    pub fn is(self, label: &str, value: &str) -> Self {
        self.matching(label, "=", value)
    }

    /// Adds the matcher `label != value`. `""` requires the label to be present.
    pub fn is_not(self, label: &str, value: &str) -> Self {
        self.matching(label, "!=", value)
    }

    /// Adds a matcher for an anchored regular expression.
    pub fn matches(self, label: &str, pattern: &str) -> Self {
        self.matching(label, "=~", pattern)
    }

    fn matching(mut self, label: &str, operator: &str, value: &str) -> Self {
        self.matchers.push(format!("{}{operator}\"{value}\"", exposed_label(label)));
        self
    }

    /// Current values.
    pub fn now(self) -> Query {
        Query::new(self.selector())
    }

    /// Values one rate interval ago.
    pub fn offset_by_interval(self) -> Query {
        Query::new(format!("{} offset $__rate_interval", self.selector()))
    }

    /// Increase per second.
    pub fn rate(self) -> Query {
        self.over_time("rate", "$__rate_interval")
    }

    /// Last values within the selected time range, which ends one rate interval ago.
    pub fn last_before_interval(self) -> Query {
        Query::new(format!("last_over_time({}[$__range] offset $__rate_interval)", self.selector()))
    }

    /// Number of value changes within the rate interval.
    pub fn changes(self) -> Query {
        self.over_time("changes", "$__rate_interval")
    }

    /// Number of value changes within the selected time range.
    pub fn changes_in_range(self) -> Query {
        self.over_time("changes", "$__range")
    }

    /// Quantile of a histogram.
    pub fn quantile<const N: usize>(self, quantile: f64, by: [&str; N]) -> Query {
        let mut labels = exposed_labels(by);
        labels.push("le".to_owned());
        let buckets = self.bucket().rate().promql;
        let promql = format!("histogram_quantile({quantile}, sum by ({}) ({buckets}))", labels.join(", "));
        Query { by: exposed_labels(by), ..Query::new(promql) }
    }

    fn over_time(self, function: &str, window: &str) -> Query {
        Query::new(format!("{function}({}[{window}])", self.selector()))
    }

    fn selector(&self) -> String {
        if self.matchers.is_empty() { self.name.clone() } else { format!("{}{{{}}}", self.name, self.matchers.join(",")) }
    }
}

impl Query {
    fn new(promql: String) -> Self {
        Self { promql, compound: false, by: Vec::new(), legend_prefix: None, absence_reason: None }
    }

    /// Sum, grouped by `by`.
    pub fn sum_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("sum", by)
    }

    /// Maximum, grouped by `by`.
    pub fn max_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("max", by)
    }

    /// Minimum, grouped by `by`.
    pub fn min_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("min", by)
    }

    /// Mean, grouped by `by`.
    pub fn avg_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("avg", by)
    }

    /// Number of series, grouped by `by`.
    pub fn count_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("count", by)
    }

    fn aggregated<const N: usize>(self, operator: &str, by: [&str; N]) -> Self {
        let labels = exposed_labels(by);
        let by = if labels.is_empty() { String::new() } else { format!(" by ({})", labels.join(", ")) };
        Self { promql: format!("{operator}{by} ({})", self.promql), compound: false, by: labels, ..self }
    }

    /// Ratio of this query to `whole`, which has the same grouping. 0 without events, so that "no
    /// errors" is drawn as a line.
    pub fn share_of(self, whole: &Self) -> Self {
        let (part, whole) = (self.operand(), whole.operand());
        self.with(format!("({part} or 0 * {whole}) / ({whole} > 0) or 0 * {whole}"))
    }

    /// Returns 0 for each process that has `always_present` but not this series. For series that do
    /// not exist before their first event.
    pub fn or_zero(self, always_present: &Series) -> Self {
        let job = if self.by.iter().any(|label| label == "job") { "job" } else { "" };
        let promql = format!("{} or on ({job}) 0 * max by ({job}) ({})", self.promql, always_present.selector());
        self.with(promql)
    }

    /// Keeps values above `limit`.
    pub fn above(self, limit: f64) -> Self {
        let promql = format!("{} > {limit}", self.operand());
        self.with(promql)
    }

    /// Raises negative values to 0: the difference of two estimates may be below it.
    pub fn at_least_zero(self) -> Self {
        let promql = format!("clamp_min({}, 0)", self.promql);
        self.with(promql)
    }

    /// Converts a per-second rate to a per-minute rate.
    pub fn per_minute(self) -> Self {
        60.0 * self
    }

    /// Converts Unix timestamps to ages in seconds.
    pub fn age(self) -> Self {
        let promql = format!("time() - {}", self.operand());
        self.with(promql)
    }

    /// Difference to 1.
    pub fn complement(self) -> Self {
        let promql = format!("1 - {}", self.operand());
        self.with(promql)
    }

    /// Sets a prefix for the labels in the legend.
    pub fn legend_prefix(self, prefix: &'static str) -> Self {
        Self { legend_prefix: Some(prefix), ..self }
    }

    /// Marks a query that may have no series in a healthy system under load, with the reason.
    pub fn may_be_absent(self, reason: &'static str) -> Self {
        Self { absence_reason: Some(reason), ..self }
    }

    /// Returns the query text for Grafana, with variables.
    pub fn promql(&self) -> &str {
        &self.promql
    }

    /// Returns the reason why the query may have no series in a healthy system under load. `None`
    /// if series are required.
    pub fn absence_reason(&self) -> Option<&'static str> {
        self.absence_reason
    }

    /// Returns the legend: prefix and labels, or `default` if both are empty.
    pub(crate) fn legend(&self, default: &str) -> String {
        let prefix = self.legend_prefix.map(str::to_owned);
        let labels = self.by.iter().map(|label| format!("{{{{{label}}}}}"));
        let parts: Vec<_> = prefix.into_iter().chain(labels).collect();
        if parts.is_empty() { default.to_owned() } else { parts.join(" ") }
    }

    fn operand(&self) -> String {
        if self.compound { format!("({})", self.promql) } else { self.promql.clone() }
    }

    fn with(self, promql: String) -> Self {
        Self { promql, compound: true, ..self }
    }

    fn infix(self, operator: &str, other: &Self) -> Self {
        let promql = format!("{} {operator} {}", self.operand(), other.operand());
        let absence_reason = self.absence_reason.or(other.absence_reason);
        Self { absence_reason, ..self.with(promql) }
    }
}

impl Add for Query {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.infix("+", &other)
    }
}

impl Div for Query {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        self.infix("/", &other)
    }
}

impl Sub for Query {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.infix("-", &other)
    }
}

impl Mul<Query> for f64 {
    type Output = Query;

    fn mul(self, query: Query) -> Query {
        let promql = format!("{self} * {}", query.operand());
        query.with(promql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        known_metrics::Names,
        promql_check::problems,
        resolved_queries::{Windows, substitute_variables},
    };

    #[test]
    fn share_of_is_zero_without_errors() {
        let calls = || metric("palisade.breaker.calls");
        let failed = calls().is("outcome", "failure").rate().sum_by(["target"]);
        let ratio = failed.share_of(&calls().rate().sum_by(["target"]));
        let whole = r#"sum by (target) (rate(palisade_breaker_calls_total{job=~"$job",instance=~"$instance"}[$__rate_interval]))"#;
        let part = whole.replace(r#""$instance""#, r#""$instance",outcome="failure""#);
        assert_eq!(ratio.promql(), format!("({part} or 0 * {whole}) / ({whole} > 0) or 0 * {whole}"));
        assert_eq!(ratio.legend("failures"), "{{target}}");
    }

    #[test]
    fn compound_operands_get_parentheses() {
        let up = || external_metric("up").now().sum_by([]);
        let selected = r#"sum (up{job=~"$job",instance=~"$instance"})"#;
        assert_eq!((2.0 * (up() - up())).promql(), format!("2 * ({selected} - {selected})"));
        assert_eq!((up() / up().complement()).promql(), format!("{selected} / (1 - {selected})"));
    }

    #[test]
    fn promql_check_reports_names_outside_catalog() {
        let names = Names::default();
        for (query, found) in [
            (metric("palisade.braker.state").now(), "unknown metric `palisade_braker_state`"),
            (metric("palisade.queue.wait").now(), "unknown metric `palisade_queue_wait_seconds`"),
            (metric("palisade.breaker.state").is("targte", "a").now(), "has no label `targte`"),
            (metric("palisade.breaker.state").now().max_by(["targte"]), "has no label `targte`"),
        ] {
            let problems = problems(&substitute_variables(query.promql(), Windows::default()), &names);
            assert!(problems.iter().any(|problem| problem.contains(found)), "{problems:?}");
        }
    }
}
