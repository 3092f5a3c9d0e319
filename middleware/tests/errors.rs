//! Rejections on the wire: gRPC status and details, HTTP status, headers and problem document.
//!
//! Real servers with the real stacks, real clients and sockets. `servers.rs` starts them,
//! `expected.rs` compares.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "errors/client_layers.rs"]
mod client_layers;
#[path = "errors/expected.rs"]
mod expected;
#[path = "errors/server_layers.rs"]
mod server_layers;
#[path = "errors/servers.rs"]
mod servers;

use std::time::Duration;

use palisade_middleware::rejection::{Rejection, Retry, Violation, reasons};

use self::{
    expected::{ExpectedRejection, ExpectedRetry},
    servers::{Servers, Setup, bearer},
};

/// Rejections of a handler: one with every optional part, a plain one, and one that forbids
/// retries.
fn rejections(reason: &'static palisade_middleware::rejection::Reason) -> [(&'static str, Rejection, ExpectedRejection); 3] {
    let violations =
        vec![Violation::new("items[0].quantity", "out_of_range", "must be at least 1"), Violation::new("name", "required", "is missing")];
    let wait = Duration::from_millis(1500);
    let full = Rejection::new(reason, "test rejection")
        .with_violations(violations.clone())
        .with_metadata("orderId", "7")
        .with_metadata("allowed", vec!["A".to_owned(), "B".to_owned()])
        .with_source("password=hunter2")
        .with_retry_after(wait);
    let expected = ExpectedRejection { violations, has_metadata: true, ..ExpectedRejection::of(reason, ExpectedRetry::Exactly(wait)) };
    [
        ("full", full, expected),
        ("bare", Rejection::new(reason, "test rejection"), ExpectedRejection::of(reason, ExpectedRetry::Silent)),
        ("never", Rejection::new(reason, "test rejection").with_retry(Retry::Never), ExpectedRejection::of(reason, ExpectedRetry::Never)),
    ]
}

/// Looks up the rejection for the handlers of [`Servers`] by reason and variant.
fn rejection(slug: &str, variant: &str) -> Option<Rejection> {
    let reason = reasons::ALL.iter().find(|reason| reason.slug == slug)?;
    rejections(reason).into_iter().find(|(name, ..)| *name == variant).map(|(_, rejection, _)| rejection)
}

#[tokio::test]
async fn every_rejection_reaches_http_and_grpc_clients() {
    let servers = Servers::start(Setup::default()).await;
    let bearer = [bearer("alice")];
    for reason in reasons::ALL {
        for (variant, _, expected) in rejections(reason) {
            let case = format!("{} {variant}", reason.slug);
            expected.assert_http(&case, servers.get(&format!("/refuse/{}/{variant}", reason.slug), &bearer, None).await).await;
            expected.assert_grpc(&case, &servers.check(&format!("refuse/{}/{variant}", reason.slug), &bearer).await.unwrap_err());
        }
    }
}
