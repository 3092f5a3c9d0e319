//! Transactional outbox, event broker and event consumers of Palisade.
//!
//! A service writes an event to its outbox in the transaction of the change. A [`Relay`] then
//! publishes it to the [`Broker`]: NATS `JetStream` if configured, otherwise an in-process channel.
//! Delivery is at least once. Consumers drop duplicates by event id, and outdated events by subject
//! and sequence.
//!
//! - [`Subscription`]: all future events, for one process, e.g. for cache invalidation.
//! - [`Consumer`]: each event until it is processed, by one of the replicas that share the
//!   consumer's name.
//!
//! `docs/events.md` describes the events and their delivery.

mod broker;
mod config;
mod consumer;
mod event;
pub mod metrics;
mod relay;
mod subscription;

pub use broker::{Broker, Outcome, Topic};
pub use config::Config;
pub use consumer::{Consumer, EventHandler, Handled};
pub use event::{Event, InvalidEvent};
pub use relay::{Outbox, Relay};
pub use subscription::{Subscription, SubscriptionItem};
