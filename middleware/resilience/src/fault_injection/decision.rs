//! Matching of fault rules to a request. Pure; takes the random function.

use std::time::Duration;

use super::rule::{CompiledRule, Effect};
use crate::{
    jitter::{self, RandomFn},
    method_table::Method,
};

/// Returns the injected delay of a request to `method` (the sum of all latency rules that hit), and
/// the rule that then replaces the response (the first other rule that hits).
pub(super) fn decide<'a>(rules: &'a [CompiledRule], method: &'static Method, draw: RandomFn) -> (Duration, Option<&'a CompiledRule>) {
    let (mut delay, mut end) = (Duration::ZERO, None);
    for armed in rules.iter().filter(|armed| armed.methods.iter().any(|hit| std::ptr::eq(*hit, method))) {
        // A random number is below 1: a rate of 1 hits every request, a rate of 0 none.
        let hits = || draw() < armed.rule.rate;
        match armed.effect {
            Effect::Latency { wait, jitter } if hits() => delay += wait.saturating_sub(jitter) + jitter::full_jitter(jitter * 2, draw),
            Effect::Error(_) | Effect::Abort | Effect::Hang if end.is_none() && hits() => end = Some(armed),
            _ => {}
        }
    }
    (delay, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault_injection::rule::{Kind, Rule, compile},
        method_table::Access,
    };

    static METHODS: [Method; 2] = [Method::grpc("/a.B/One", Access::Public), Method::grpc("/a.B/Two", Access::Public)];

    /// Returns the effect of the rules on `/a.B/One`: delay in milliseconds, and the name of the
    /// rule that replaces the response.
    fn decided(rules: &[(&str, f64, Kind)], draw: RandomFn) -> (u128, Option<String>) {
        let rules = rules.iter().enumerate().map(|(index, (method, rate, kind))| {
            let name = index.to_string();
            Rule { name, method: (*method).to_owned(), rate: *rate, kind: kind.clone() }
        });
        let names: Vec<_> = METHODS.iter().map(|method| (method.rpc_method().to_owned(), method)).collect();
        let armed = compile(rules.collect(), &names).unwrap();
        let (delay, end) = decide(&armed, &METHODS[0], draw);
        (delay.as_millis(), end.map(|armed| armed.rule.name.clone()))
    }

    fn latency(ms: u64, jitter_ms: u64) -> Kind {
        Kind::Latency { ms, jitter_ms }
    }

    #[test]
    fn rate_decides_and_zero_and_one_are_certain() {
        for (rate, draw, hit) in [(0.5, (|| 0.49) as RandomFn, true), (0.5, || 0.5, false), (1.0, || 0.999_999, true), (0.0, || 0.0, false)]
        {
            assert_eq!(decided(&[("*", rate, Kind::Hang)], draw).1.is_some(), hit, "{rate} {}", draw());
        }
    }

    #[test]
    fn latency_jitter_is_symmetric() {
        for (draw, ms) in [((|| 0.0) as RandomFn, 80), (|| 0.5, 100), (|| 0.75, 110)] {
            assert_eq!(decided(&[("*", 1.0, latency(100, 20))], draw).0, ms);
        }
    }

    #[test]
    fn latencies_add_up_and_first_other_rule_wins() {
        let rules = [
            ("a.B/One", 1.0, latency(100, 0)),
            ("a.B/Two", 1.0, Kind::Hang),
            ("*", 0.1, Kind::Abort),
            ("a.*", 1.0, Kind::Error("overloaded".to_owned())),
            ("*", 1.0, Kind::Hang),
            ("a.B/*", 1.0, latency(20, 0)),
        ];
        assert_eq!(decided(&rules, || 0.5), (120, Some("3".to_owned())));
    }
}
