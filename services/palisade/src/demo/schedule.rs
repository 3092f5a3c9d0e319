//! Faults of the demo: one in each minute, from second 20 to second 40.

use std::time::Duration;

use serde_json::{Value, json};

/// Services with faults.
pub(super) const SERVICES: [&str; 2] = ["products", "orders"];

const MINUTE_S: u64 = 60;
const BEGIN_S: u64 = 20;
const END_S: u64 = 40;

/// Fault of a service.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) service: &'static str,
    pub(super) text: &'static str,
    rate: f64,
    kind: Kind,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Error(&'static str),
    LatencyMs(u64),
    Hang,
}

const FAULTS: [Fault; 4] = [
    Fault { service: "products", text: "products is unavailable", rate: 1.0, kind: Kind::Error("not_ready") },
    Fault { service: "products", text: "products is slow, half of the requests", rate: 0.5, kind: Kind::LatencyMs(800) },
    Fault { service: "orders", text: "orders is unavailable, a third of the requests", rate: 0.33, kind: Kind::Error("not_ready") },
    Fault { service: "products", text: "products does not respond, a third of the requests", rate: 0.33, kind: Kind::Hang },
];

impl Fault {
    /// Rule of `/faults`.
    pub(super) fn rule(&self) -> Value {
        let kind = match self.kind {
            Kind::Error(reason) => json!({ "error": reason }),
            Kind::LatencyMs(ms) => json!({ "latency": { "ms": ms } }),
            Kind::Hang => json!("hang"),
        };
        json!({ "name": "demo", "method": "*", "rate": self.rate, "kind": kind })
    }
}

/// Returns the fault at this time after the start.
pub(super) fn fault_at(elapsed: Duration) -> Option<&'static Fault> {
    let (minute, second) = (elapsed.as_secs() / MINUTE_S, elapsed.as_secs() % MINUTE_S);
    let index = usize::try_from(minute).unwrap_or_default() % FAULTS.len();
    (BEGIN_S..END_S).contains(&second).then(|| &FAULTS[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_has_one_fault() {
        let at = |second| fault_at(Duration::from_secs(second)).map(|fault| fault.text);
        for minute in 0..8_u64 {
            let expected = FAULTS[usize::try_from(minute).unwrap() % FAULTS.len()].text;
            let times = [0, 19, 20, 39, 40, 59].map(|second| at(minute * MINUTE_S + second));
            assert_eq!(times, [None, None, Some(expected), Some(expected), None, None], "minute {minute}");
        }
        assert!(FAULTS.iter().all(|fault| SERVICES.contains(&fault.service)));
    }
}
