//! Events of Palisade: what one looks like, how it comes from an outbox to whoever wants to know, and how it is consumed.
//!
//! An event tells that something changed, after it did; its row in an outbox was written in the same step. A [`Relay`] hands it to the
//! [`Broker`]: NATS `JetStream` where one is configured, this process itself where none is. It may come twice, and never not at all: who
//! consumes it drops what he has had, by its id, or what is older than what he has, by its subject and sequence.
//!
//! - [`Subscription`]: every event from now on, in this process alone, for what is only woken or forgotten by it.
//! - [`Consumer`]: every event once until its effect is done, by one of all processes that share a name.
//!
//! `docs/events.md` says what is in an event and where it goes.

mod broker;
mod config;
mod consumer;
mod event;
pub mod metrics;
mod relay;
mod subscription;

pub use broker::{Broker, Outcome, Topic};
pub use config::Config;
pub use consumer::{Handled, Consumer, EventHandler};
pub use event::{Event, InvalidEvent};
pub use relay::{Outbox, Relay};
pub use subscription::{SubscriptionItem, Subscription};
