//! Every refusal as those who are refused see it: a gRPC client its status and details, an HTTP client its status, headers and problem.
//!
//! Real servers behind the real stacks, real clients, sockets between them. `servers.rs` starts them, `told.rs` compares.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

#[path = "errors/client_layers.rs"]
mod client_layers;
#[path = "errors/server_layers.rs"]
mod server_layers;
#[path = "errors/servers.rs"]
mod servers;
#[path = "errors/told.rs"]
mod told;

use std::time::Duration;

use palisade_middleware::rejection::{Rejection, Retry, Violation, reasons};

use self::{
    servers::{Servers, Setup, bearer},
    told::{ExpectedRejection, ExpectedRetry},
};

/// What a handler says: everything that a refusal can carry, what most carry, and the opposite.
fn rejections(reason: &'static palisade_middleware::rejection::Reason) -> [(&'static str, Rejection, ExpectedRejection); 3] {
    let violations =
        vec![Violation::new("items[0].quantity", "out_of_range", "must be at least 1"), Violation::new("name", "required", "is missing")];
    let wait = Duration::from_millis(1500);
    let full = Rejection::new(reason, "in so many words")
        .with_violations(violations.clone())
        .with_metadata("orderId", "7")
        .with_metadata("allowed", vec!["A".to_owned(), "B".to_owned()])
        .with_source("password=hunter2")
        .with_retry_after(wait);
    let expected = ExpectedRejection { violations, has_metadata: true, ..ExpectedRejection::of(reason, ExpectedRetry::Exactly(wait)) };
    [
        ("whole", full, expected),
        ("bare", Rejection::new(reason, "in so many words"), ExpectedRejection::of(reason, ExpectedRetry::Silent)),
        ("never", Rejection::new(reason, "in so many words").with_retry(Retry::Never), ExpectedRejection::of(reason, ExpectedRetry::Never)),
    ]
}

/// What the handlers of [`Servers`] refuse with, by reason and variant.
fn rejection(slug: &str, variant: &str) -> Option<Rejection> {
    let reason = reasons::ALL.iter().find(|reason| reason.slug == slug)?;
    rejections(reason).into_iter().find(|(name, ..)| *name == variant).map(|(_, rejection, _)| rejection)
}

#[tokio::test]
async fn a_handlers_refusal_reaches_both_kinds_of_client_whatever_its_reason() {
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
