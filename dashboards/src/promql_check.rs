//! PromQL check: every metric and label used by a query must exist.
//!
//! Walks the syntax tree from the selectors upwards and tracks the labels that remain at each step.

use std::{collections::BTreeSet, time::Duration};

use promql_parser::{
    label::{METRIC_NAME, MatchOp, Matcher},
    parser::{
        self, AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
        token::{T_BOTTOMK, T_COUNT_VALUES, T_LAND, T_LOR, T_LUNLESS, T_TOPK, TokenType},
        value::ValueType,
    },
    util::{ExprVisitor, walk_expr},
};

use crate::known_metrics::Names;

type Labels = BTreeSet<String>;

/// Series selector of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Metric name.
    pub name: String,
    /// Label matchers as label and value, regardless of the operator.
    pub matchers: Vec<(String, String)>,
    /// Range of a matrix selector, `None` for an instant selector.
    pub range: Option<Duration>,
    /// Selector text without range and offset.
    pub text: String,
}

/// Returns the unknown metrics and labels of a query without Grafana variables. Empty if there are
/// none.
pub fn problems(promql: &str, names: &Names) -> Vec<String> {
    let mut checker = LabelChecker { names, problems: Vec::new(), unknown_metric: false };
    match parser::parse(promql) {
        Ok(tree) => drop(checker.labels(&tree)),
        Err(error) => checker.problems.push(format!("invalid PromQL: {error}")),
    }
    checker.problems
}

/// Returns the labels of a query's result.
pub fn labels(promql: &str, names: &Names) -> BTreeSet<String> {
    let mut checker = LabelChecker { names, problems: Vec::new(), unknown_metric: false };
    parser::parse(promql).map(|tree| checker.labels(&tree)).unwrap_or_default()
}

/// Returns all selectors of a query. Empty if the text is not valid PromQL.
pub fn selectors(promql: &str) -> Vec<Selector> {
    let mut visitor = Selectors(Vec::new());
    if let Ok(tree) = parser::parse(promql) {
        let Ok(_) = walk_expr(&mut visitor, &tree);
    }
    visitor.0
}

struct Selectors(Vec<Selector>);

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
        let (selector, range) = match expr {
            Expr::VectorSelector(selector) => (selector, None),
            Expr::MatrixSelector(matrix) => (&matrix.vs, Some(matrix.range)),
            _ => return Ok(true),
        };
        let matchers = matchers(selector).map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
        let now = VectorSelector { offset: None, at: None, ..selector.clone() };
        self.0.push(Selector { name: name(selector), matchers, range, text: now.to_string() });
        Ok(true)
    }
}

fn matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    selector.matchers.matchers.iter().chain(selector.matchers.or_matchers.iter().flatten())
}

/// Returns the metric name of a selector, written as a name or as a `__name__` matcher.
fn name(selector: &VectorSelector) -> String {
    let by_matcher = || matchers(selector).find(|matcher| matcher.name == METRIC_NAME).map(|matcher| matcher.value.clone());
    selector.name.clone().or_else(by_matcher).unwrap_or_default()
}

struct LabelChecker<'a> {
    names: &'a Names,
    problems: Vec<String>,
    /// An unknown metric was selected, so its labels are unknown too. Missing labels are not
    /// reported then.
    unknown_metric: bool,
}

impl LabelChecker<'_> {
    /// Returns the labels of the result of `expr`.
    fn labels(&mut self, expr: &Expr) -> Labels {
        match expr {
            Expr::VectorSelector(selector) => self.check_selector(selector),
            Expr::MatrixSelector(matrix) => self.check_selector(&matrix.vs),
            Expr::Aggregate(aggregate) => self.check_aggregate(aggregate),
            Expr::Binary(binary) => self.check_binary(binary),
            Expr::Call(call) => self.check_call(call),
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Unary(inner) => self.labels(&inner.expr),
            Expr::Subquery(inner) => self.labels(&inner.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Labels::new(),
        }
    }

    fn check_selector(&mut self, selector: &VectorSelector) -> Labels {
        let name = name(selector);
        let Some(known) = self.names.get(&name) else {
            self.problems.push(format!("unknown metric `{name}`"));
            self.unknown_metric = true;
            return Labels::new();
        };
        for matcher in matchers(selector).filter(|matcher| matcher.name != METRIC_NAME) {
            self.require_label(&known.labels, &matcher.name, &name);
            // Prometheus 3 stores `1.0` where Prometheus 2 stores `1`.
            if matcher.name == "le" && matches!(matcher.op, MatchOp::Equal | MatchOp::NotEqual) && !matcher.value.contains('.') {
                self.problems.push(format!("`{name}`: `le=\"{}\"` is formatted differently by another Prometheus version", matcher.value));
            }
        }
        known.labels.clone()
    }

    fn check_aggregate(&mut self, AggregateExpr { op, expr, modifier, param }: &AggregateExpr) -> Labels {
        let inner = self.labels(expr);
        let listed: &[String] = modifier.as_ref().map_or(&[], |modifier| &modifier.labels().labels);
        for label in listed {
            self.require_label(&inner, label, expr);
        }
        let mut remaining_labels = match modifier {
            _ if [T_TOPK, T_BOTTOMK].contains(&op.id()) => inner,
            Some(LabelModifier::Include(_)) => inner.into_iter().filter(|label| listed.contains(label)).collect(),
            Some(LabelModifier::Exclude(_)) => inner.into_iter().filter(|label| !listed.contains(label)).collect(),
            None => Labels::new(),
        };
        if let (true, Some(Expr::StringLiteral(label))) = (op.id() == T_COUNT_VALUES, param.as_deref()) {
            remaining_labels.insert(label.val.clone());
        }
        remaining_labels
    }

    fn check_binary(&mut self, BinaryExpr { op, lhs, rhs, modifier }: &BinaryExpr) -> Labels {
        let (left, right) = (self.labels(lhs), self.labels(rhs));
        if lhs.value_type() == ValueType::Scalar {
            return right;
        }
        if rhs.value_type() == ValueType::Scalar {
            return left;
        }
        let matching = modifier.as_ref().and_then(|modifier: &BinModifier| modifier.matching.as_ref());
        for label in matching.map_or(&[][..], |matching| &matching.labels().labels) {
            self.require_label(&left, label, lhs);
            self.require_label(&right, label, rhs);
        }
        if is_operator(*op, T_LOR) {
            return left.union(&right).cloned().collect();
        }
        if is_operator(*op, T_LAND) || is_operator(*op, T_LUNLESS) {
            return left;
        }
        match modifier.as_ref().map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToOne(copied)) => self.group_modifier_labels(left, &copied.labels, &right, rhs),
            Some(VectorMatchCardinality::OneToMany(copied)) => self.group_modifier_labels(right, &copied.labels, &left, lhs),
            _ => match matching {
                Some(LabelModifier::Include(on)) => left.into_iter().filter(|label| on.labels.contains(label)).collect(),
                Some(LabelModifier::Exclude(ignored)) => left.into_iter().filter(|label| !ignored.labels.contains(label)).collect(),
                None => left.intersection(&right).cloned().collect(),
            },
        }
    }

    /// Adds the labels that `group_left` and `group_right` copy from the "one" side.
    fn group_modifier_labels(&mut self, mut many: Labels, copied: &[String], one: &Labels, expr: &Expr) -> Labels {
        for label in copied {
            self.require_label(one, label, expr);
            many.insert(label.clone());
        }
        many
    }

    fn check_call(&mut self, Call { func, args }: &Call) -> Labels {
        let mut inner = Labels::new();
        for argument in &args.args {
            inner.extend(self.labels(argument));
        }
        let string_argument = |index: usize| match args.args.get(index).map(AsRef::as_ref) {
            Some(Expr::StringLiteral(word)) => Some(word.val.clone()),
            _ => None,
        };
        match func.name {
            "histogram_quantile" => {
                self.require_label(&inner, "le", &args.args[1]);
                inner.remove("le");
            }
            "label_replace" => {
                // An empty source label sets a constant.
                if let Some(source) = string_argument(3).filter(|source| !source.is_empty()) {
                    self.require_label(&inner, &source, &args.args[0]);
                }
                inner.extend(string_argument(1));
            }
            "label_join" => inner.extend(string_argument(1)),
            _ => {}
        }
        inner
    }

    fn require_label(&mut self, labels: &Labels, label: &str, expression: impl std::fmt::Display) {
        if !self.unknown_metric && !labels.contains(label) {
            self.problems.push(format!("`{expression}` has no label `{label}`"));
        }
    }
}

fn is_operator(operator: TokenType, id: parser::token::TokenId) -> bool {
    operator.id() == id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_default_names(promql: &str) -> Vec<String> {
        problems(promql, &Names::default())
    }

    #[test]
    fn promql_check_accepts_known_names() {
        for valid in [
            r#"sum by (job, http_route) (rate(http_server_request_duration_seconds_count{error_type!=""}[5m]))"#,
            "histogram_quantile(0.95, sum by (le) (rate(rpc_server_call_duration_seconds_bucket[5m])))",
            "palisade_breaker_state > 0 and on (job) up == 1",
            "up * on (job, instance) group_left (version) build_info",
            r#"label_replace(up, "host", "$1", "instance", "(.*):.*")"#,
            "max without (instance) (palisade_queue_depth) or vector(0)",
            r#"http_server_request_duration_seconds_bucket{le="0.25"} or http_server_request_duration_seconds_bucket{le=~"1|1.0"}"#,
        ] {
            assert_eq!(check_default_names(valid), Vec::<String>::new(), "{valid}");
        }
    }

    #[test]
    fn promql_check_reports_unknown_names() {
        for (invalid, expected) in [
            ("palisade_braker_state", "unknown metric `palisade_braker_state`"),
            ("rate(palisade_panics[5m])", "unknown metric `palisade_panics`"),
            (r#"{__name__="upp"}"#, "unknown metric `upp`"),
            ("http_server_request_duration_seconds", "unknown metric `http_server_request_duration_seconds`"),
            (r#"palisade_breaker_state{targte="a"}"#, "has no label `targte`"),
            ("sum by (rout) (up)", "has no label `rout`"),
            ("sum without (rout) (up)", "has no label `rout`"),
            ("sum by (instance) (sum by (job) (up))", "has no label `instance`"),
            ("up / on (jbo) up", "has no label `jbo`"),
            ("up / ignoring (version) build_info", "has no label `version`"),
            ("up * on (job) group_left (versoin) build_info", "has no label `versoin`"),
            (r#"label_replace(up, "a", "$1", "instanec", "")"#, "has no label `instanec`"),
            ("histogram_quantile(0.9, sum by (job) (rate(palisade_queue_wait_seconds_bucket[5m])))", "has no label `le`"),
            ("max_over_time(sum by (statee) (palisade_stock_units)[5m:])", "has no label `statee`"),
            (r#"http_server_request_duration_seconds_bucket{le="1"}"#, "another Prometheus version"),
            ("sum by (job (up)", "invalid PromQL"),
        ] {
            let problems = check_default_names(invalid);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{invalid}: {problems:?}");
        }
    }

    #[test]
    fn selectors_have_matchers_range_and_text() {
        let found = selectors(r#"rate(up{job="a"}[30s]) / build_info"#);
        let up = Selector {
            name: "up".into(),
            matchers: vec![("job".into(), "a".into())],
            range: Some(Duration::from_secs(30)),
            text: r#"up{job="a"}"#.into(),
        };
        assert_eq!(found, [up, Selector { name: "build_info".into(), matchers: Vec::new(), range: None, text: "build_info".into() }]);
    }
}
