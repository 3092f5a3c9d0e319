//! Admin API of the circuit breakers of a process: list them, set a mode, open one for a time.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    routing::{get, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use palisade_resilience::{
    circuit_breaker::{BreakerHandle, Mode},
    rejection::{Rejection, reasons},
};

/// Maximum time for which a breaker can be opened; use `forced_open` to hold it open longer.
const MAX_OPEN: Duration = Duration::from_hours(1);

type Breakers = Arc<[BreakerHandle]>;

/// Body of a `PUT`: `{"mode": "forced_open"}` holds until the next change, `{"openForMs": 5000}`
/// opens the breaker for a time, after which probes decide.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum BreakerCommand {
    Mode(Mode),
    OpenForMs(u64),
}

/// `GET /breakers` and `PUT /breakers/{target}`. Changes end with the process.
pub fn routes(breakers: impl IntoIterator<Item = BreakerHandle>) -> Router {
    let breakers: Breakers = breakers.into_iter().collect();
    Router::new().route("/breakers", get(list)).route("/breakers/{target}", put(update)).with_state(breakers)
}

async fn list(State(breakers): State<Breakers>) -> Json<Value> {
    Json(breakers.iter().map(to_json).collect())
}

async fn update(State(breakers): State<Breakers>, Path(target): Path<String>, body: Bytes) -> Result<Json<Value>, Rejection> {
    let breaker = breakers.iter().find(|breaker| breaker.name() == target);
    let breaker = breaker.ok_or_else(|| Rejection::new(&reasons::NOT_FOUND, "this process has no circuit breaker for that target"))?;
    let invalid = |_| {
        Rejection::new(&reasons::INVALID_BODY, "expected {\"mode\": \"active|metrics_only|disabled|forced_open\"} or {\"openForMs\": n}")
    };
    match serde_json::from_slice(&body).map_err(invalid)? {
        BreakerCommand::Mode(mode) => breaker.set_mode(mode),
        BreakerCommand::OpenForMs(wait) => breaker.open_for(Duration::from_millis(wait).min(MAX_OPEN)),
    }
    tracing::warn!(upstream = breaker.name(), state = breaker.state().as_str(), "circuit breaker set by operator");
    Ok(Json(to_json(breaker)))
}

fn to_json(breaker: &BreakerHandle) -> Value {
    let counts = breaker.counts();
    json!({
        "target": breaker.name(),
        "state": breaker.state().as_str(),
        "openForMs": breaker.remaining().map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        "calls": counts.total,
        "failed": counts.failed,
        "slow": counts.slow,
    })
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use tower::{Layer, ServiceExt};

    use super::*;
    use palisade_resilience::{
        circuit_breaker::{CircuitBreakerLayer, Config, State as Standing},
        respond::{Protocol, RespondLayer},
    };

    async fn send(breaker: &CircuitBreakerLayer, method: &str, path: &str, body: &'static str) -> (StatusCode, Value) {
        let router = RespondLayer(Protocol::Http).layer(routes([breaker.handle()]));
        let request = Request::builder().method(method).uri(path).body(body.to_owned()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn admin_lists_opens_and_closes_breakers() {
        let breaker = CircuitBreakerLayer::new("products", &Config::default());
        let (status, shown) = send(&breaker, "GET", "/breakers", "").await;
        assert_eq!((status, &shown[0]["target"], &shown[0]["state"]), (StatusCode::OK, &json!("products"), &json!("closed")));
        for (wish, state) in [
            (r#"{"mode":"forced_open"}"#, Standing::ForcedOpen),
            (r#"{"mode":"metrics_only"}"#, Standing::MetricsOnly),
            (r#"{"mode":"disabled"}"#, Standing::Disabled),
            (r#"{"openForMs":5000}"#, Standing::Open),
            (r#"{"mode":"active"}"#, Standing::Closed),
        ] {
            let (status, shown) = send(&breaker, "PUT", "/breakers/products", wish).await;
            assert_eq!((status, &shown["state"]), (StatusCode::OK, &json!(state.as_str())), "{wish}");
            assert_eq!(breaker.handle().state(), state, "{wish}");
        }
    }

    #[tokio::test]
    async fn admin_rejects_invalid_commands_without_effect() {
        let breaker = CircuitBreakerLayer::new("products", &Config::default());
        for (path, wish, refused) in [
            ("/breakers/orders", r#"{"mode":"disabled"}"#, "not_found"),
            ("/breakers/products", r#"{"mode":"of"}"#, "invalid_body"),
            ("/breakers/products", r#"{"mode":"disabled","openForMs":1}"#, "invalid_body"),
            ("/breakers/products", r#"{"openForMs":-1}"#, "invalid_body"),
            ("/breakers/products", "", "invalid_body"),
        ] {
            let (_, problem) = send(&breaker, "PUT", path, wish).await;
            assert_eq!(problem["code"], refused, "{wish}");
        }
        assert_eq!(breaker.handle().state(), Standing::Closed);
    }
}
