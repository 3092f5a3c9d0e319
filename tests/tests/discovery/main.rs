//! Service discovery tests: replicas of products in a static list, DNS and etcd. Membership changes
//! under load fail no repeatable request.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod balance;
mod dns;
mod etcd;
mod fixture;
mod static_list;
