//! Transactional outbox, event broker and event subscriptions of Palisade.
//!
//! A service writes an event to its outbox in the transaction of the change. A [`Relay`] then
//! publishes it to the [`Broker`]: NATS `JetStream` if configured, otherwise an in-process channel.
//! Delivery is at least once. Consumers drop duplicates by event id, and outdated events by subject
//! and sequence. A [`Subscription`] receives all future events in one process, e.g. for cache
//! invalidation.
//!
//! `docs/events.md` describes the events and their delivery.

mod broker;
mod config;
mod event;
pub mod metrics;
mod naming;
mod nats;
mod relay;
mod subscription;

pub use broker::{Broker, Destination};
pub use config::Config;
pub use event::{Event, InvalidEvent, Topic};
pub use naming::NAMING;
pub use nats::Outcome;
pub use relay::{Lease, Outbox, Relay};
pub use subscription::{Subscription, SubscriptionItem};
