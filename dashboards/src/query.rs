//! PromQL, written in Rust: names come from the catalogue, and every selector asks for the jobs and instances that the reader chose.
//!
//! Nothing here refuses anything: a name or a label that does not exist stays in the text, and [`check`](crate::check) finds it there.

use std::ops::{Add, Div, Mul, Sub};

use palisade_middleware::metrics::Metric;

use crate::known_metrics::{catalogue, exposed_label, is_of_target};

/// Some series of one metric.
#[must_use]
#[derive(Debug, Clone)]
pub struct Series {
    name: String,
    matchers: Vec<String>,
}

/// A query, and how its lines are called.
#[must_use]
#[derive(Debug, Clone)]
pub struct Query {
    promql: String,
    /// An operator binds its parts: in a larger query it needs parentheses.
    compound: bool,
    by: Vec<String>,
    called: Option<&'static str>,
    sparse: Option<&'static str>,
}

/// The series of a metric of the catalogue, by its name there.
pub fn metric(name: &str) -> Series {
    let known = catalogue().into_iter().find(|metric| metric.name == name);
    Series { name: known.map_or_else(|| exposed_label(name), Metric::exposed), matchers: of_target() }
}

/// The series of a metric that is not ours, by the name that Prometheus has.
pub fn external_metric(name: &str) -> Series {
    Series { name: name.to_owned(), matchers: if is_of_target(name) { of_target() } else { Vec::new() } }
}

fn of_target() -> Vec<String> {
    ["job", "instance"].map(|label| format!("{label}=~\"${label}\"")).to_vec()
}

fn list<const N: usize>(labels: [&str; N]) -> Vec<String> {
    labels.into_iter().map(exposed_label).collect()
}

impl Series {
    /// How many observations a histogram has had.
    pub fn count(self) -> Self {
        self.suffixed("_count")
    }

    /// All values that a histogram has had, added up. Never for counting.
    pub fn sum(self) -> Self {
        self.suffixed("_sum")
    }

    /// The buckets of a histogram.
    pub fn bucket(self) -> Self {
        self.suffixed("_bucket")
    }

    /// What Prometheus calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn suffixed(mut self, suffix: &str) -> Self {
        self.name.push_str(suffix);
        self
    }

    /// Those whose `label` is `value`.
    pub fn is(self, label: &str, value: &str) -> Self {
        self.matching(label, "=", value)
    }

    /// Those whose `label` is not `value`; `""` is no label at all.
    pub fn is_not(self, label: &str, value: &str) -> Self {
        self.matching(label, "!=", value)
    }

    /// Those whose `label` matches a regular expression, from its beginning to its end.
    pub fn matches(self, label: &str, pattern: &str) -> Self {
        self.matching(label, "=~", pattern)
    }

    fn matching(mut self, label: &str, operator: &str, value: &str) -> Self {
        self.matchers.push(format!("{}{operator}\"{value}\"", exposed_label(label)));
        self
    }

    /// The values as they are.
    pub fn now(self) -> Query {
        Query::new(self.selector())
    }

    /// The values as they were one interval ago.
    pub fn offset_by_interval(self) -> Query {
        Query::new(format!("{} offset $__rate_interval", self.selector()))
    }

    /// Growth per second.
    pub fn rate(self) -> Query {
        self.over_time("rate", "$__rate_interval")
    }

    /// How often the value changed in the last interval.
    pub fn changes(self) -> Query {
        self.over_time("changes", "$__rate_interval")
    }

    /// How often the value changed in all the time that is shown.
    pub fn changes_shown(self) -> Query {
        self.over_time("changes", "$__range")
    }

    /// A quantile of a histogram's observations.
    pub fn quantile<const N: usize>(self, quantile: f64, by: [&str; N]) -> Query {
        let mut labels = list(by);
        labels.push("le".to_owned());
        let buckets = self.bucket().rate().promql;
        let promql = format!("histogram_quantile({quantile}, sum by ({}) ({buckets}))", labels.join(", "));
        Query { by: list(by), ..Query::new(promql) }
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
        Self { promql, compound: false, by: Vec::new(), called: None, sparse: None }
    }

    /// Added up, one line for each combination of `by`.
    pub fn sum_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("sum", by)
    }

    /// The greatest, one line for each combination of `by`.
    pub fn max_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("max", by)
    }

    /// The least, one line for each combination of `by`.
    pub fn min_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("min", by)
    }

    /// How many there are, one line for each combination of `by`.
    pub fn count_by<const N: usize>(self, by: [&str; N]) -> Self {
        self.aggregated("count", by)
    }

    fn aggregated<const N: usize>(self, operator: &str, by: [&str; N]) -> Self {
        let labels = list(by);
        let by = if labels.is_empty() { String::new() } else { format!(" by ({})", labels.join(", ")) };
        Self { promql: format!("{operator}{by} ({})", self.promql), compound: false, by: labels, ..self }
    }

    /// The share that these are of `whole`, which is by the same labels. 0 where nothing happened at all, so that "no errors" is a line.
    pub fn share_of(self, whole: &Self) -> Self {
        let (part, whole) = (self.operand(), whole.operand());
        self.with(format!("({part} or 0 * {whole}) / ({whole} > 0) or 0 * {whole}"))
    }

    /// 0 where there is none of these but a process that has `witness`: for what has no series before it happened for the first time.
    pub fn or_zero(self, witness: &Series) -> Self {
        let job = if self.by.iter().any(|label| label == "job") { "job" } else { "" };
        let promql = format!("{} or on ({job}) 0 * max by ({job}) ({})", self.promql, witness.selector());
        self.with(promql)
    }

    /// Only what is above `limit`.
    pub fn above(self, limit: f64) -> Self {
        let promql = format!("{} > {limit}", self.operand());
        self.with(promql)
    }

    /// Only what has no partner in `other`.
    pub fn unless(self, other: &Self) -> Self {
        let promql = format!("{} unless {}", self.operand(), other.operand());
        self.with(promql)
    }

    /// Per minute what was per second.
    pub fn per_minute(self) -> Self {
        60.0 * self
    }

    /// How long ago the moments are.
    pub fn age(self) -> Self {
        let promql = format!("time() - {}", self.operand());
        self.with(promql)
    }

    /// What is missing to 1.
    pub fn complement(self) -> Self {
        let promql = format!("1 - {}", self.operand());
        self.with(promql)
    }

    /// A word before the labels in the legend.
    pub fn legend_prefix(self, called: &'static str) -> Self {
        Self { called: Some(called), ..self }
    }

    /// Has no series in a healthy system under load, because of `reason`.
    pub fn may_be_absent(self, reason: &'static str) -> Self {
        Self { sparse: Some(reason), ..self }
    }

    /// The query as Grafana gets it, with its variables.
    pub fn promql(&self) -> &str {
        &self.promql
    }

    /// Why it may have no series in a healthy system under load; `None` if it must have some.
    pub fn may_be_empty(&self) -> Option<&'static str> {
        self.sparse
    }

    /// What a line is called: the word, then the labels; `otherwise` without any.
    pub(crate) fn legend(&self, otherwise: &str) -> String {
        let called = self.called.map(str::to_owned);
        let labels = self.by.iter().map(|label| format!("{{{{{label}}}}}"));
        let words: Vec<_> = called.into_iter().chain(labels).collect();
        if words.is_empty() { otherwise.to_owned() } else { words.join(" ") }
    }

    fn operand(&self) -> String {
        if self.compound { format!("({})", self.promql) } else { self.promql.clone() }
    }

    fn with(self, promql: String) -> Self {
        Self { promql, compound: true, ..self }
    }

    fn infix(self, operator: &str, other: &Self) -> Self {
        let promql = format!("{} {operator} {}", self.operand(), other.operand());
        let sparse = self.sparse.or(other.sparse);
        Self { sparse, ..self.with(promql) }
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
        promql_check::problems,
        resolved_queries::{Windows, substitute_variables},
        known_metrics::Names,
    };

    #[test]
    fn no_errors_are_a_line_at_zero() {
        let calls = || metric("palisade.breaker.calls");
        let failed = calls().is("outcome", "failure").rate().sum_by(["target"]);
        let ratio = failed.share_of(&calls().rate().sum_by(["target"]));
        let whole = r#"sum by (target) (rate(palisade_breaker_calls_total{job=~"$job",instance=~"$instance"}[$__rate_interval]))"#;
        let part = whole.replace(r#""$instance""#, r#""$instance",outcome="failure""#);
        assert_eq!(ratio.promql(), format!("({part} or 0 * {whole}) / ({whole} > 0) or 0 * {whole}"));
        assert_eq!(ratio.legend("failures"), "{{target}}");
    }

    #[test]
    fn what_operators_bind_is_kept_together() {
        let up = || external_metric("up").now().sum_by([]);
        let selected = r#"sum (up{job=~"$job",instance=~"$instance"})"#;
        assert_eq!((2.0 * (up() - up())).promql(), format!("2 * ({selected} - {selected})"));
        assert_eq!((up() / up().complement()).promql(), format!("{selected} / (1 - {selected})"));
    }

    #[test]
    fn what_no_catalogue_has_is_found_in_the_text() {
        let names = Names::default();
        for (query, found) in [
            (metric("palisade.braker.state").now(), "nobody exposes `palisade_braker_state`"),
            (metric("palisade.queue.wait").now(), "nobody exposes `palisade_queue_wait_seconds`"),
            (metric("palisade.breaker.state").is("targte", "a").now(), "has no label `targte`"),
            (metric("palisade.breaker.state").now().max_by(["targte"]), "has no label `targte`"),
        ] {
            let problems = problems(&substitute_variables(query.promql(), Windows::default()), &names);
            assert!(problems.iter().any(|problem| problem.contains(found)), "{problems:?}");
        }
    }
}
