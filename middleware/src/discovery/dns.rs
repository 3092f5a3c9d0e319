//! DNS: the addresses of a name, or the services of one (SRV) and the addresses of their hosts.
//!
//! Of SRV records those of the lowest priority are used, and all of them alike: the balancer goes by load, so weights are not heeded.
//! A question that nobody answers has its last answer: an AAAA that fails does not take away what A has told, nor one host another's.

mod ask;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hickory_resolver::{net::NetError, proto::rr::Name};

use self::ask::{Ask, Family, Service, System};
use super::{
    refresh::{Resolve, Resolved},
    upstream::{Kind, Question},
};
use crate::client::address::Address;

/// Hosts of a service that are asked for; its own bound lies below.
const MOST_HOSTS: usize = 1_024;
/// Hosts that are asked for at once.
const AT_ONCE: usize = 16;

/// Who answers a [`Question`].
pub(super) struct Dns<A = System> {
    ask: A,
    question: Question,
    last: HashMap<(Name, Family), Vec<IpAddr>>,
}

impl Dns {
    pub(super) fn new(question: Question) -> Self {
        Self { ask: System::new(question.server), question, last: HashMap::new() }
    }
}

/// What is told of the addresses of some hosts.
struct Hosts {
    addresses: Vec<SocketAddr>,
    good_for: Duration,
    partial: bool,
}

impl<A: Ask> Dns<A> {
    /// The addresses of `hosts`; an error if not one question was answered.
    async fn hosts(&mut self, hosts: Vec<(Name, u16)>) -> Result<Hosts, NetError> {
        let questions: Vec<_> = hosts.iter().flat_map(|(name, _)| Family::BOTH.map(|family| (name.clone(), family))).collect();
        let ask = &self.ask;
        let answers: Vec<_> = stream::iter(questions.iter().cloned())
            .map(|(name, family)| async move { ask.addresses(&name, family).await })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut told = HashMap::new();
        let (mut good_for, mut partial, mut answered, mut error) = (Duration::MAX, false, false, None);
        for (question, answer) in questions.into_iter().zip(answers) {
            let addresses = match answer {
                Ok(answer) => {
                    answered = true;
                    good_for = good_for.min(answer.good_for);
                    answer.records
                }
                Err(failed) => {
                    (partial, error) = (true, Some(failed));
                    self.last.remove(&question).unwrap_or_default()
                }
            };
            told.insert(question, addresses);
        }
        if let Some(error) = error.filter(|_| !answered) {
            self.last.extend(told);
            return Err(error);
        }
        let of = |name: &Name, family| told.get(&(name.clone(), family)).into_iter().flatten().copied();
        let both = |name: &Name| Family::BOTH.map(|family| of(name, family).collect::<Vec<_>>()).concat();
        let addresses = hosts.iter().flat_map(|(name, port)| both(name).into_iter().map(|ip| SocketAddr::new(ip, *port))).collect();
        self.last = told;
        Ok(Hosts { addresses, good_for, partial })
    }
}

impl<A: Ask> Resolve for Dns<A> {
    type Error = NetError;

    async fn resolve(&mut self) -> Result<Resolved, NetError> {
        self.ask.begin()?;
        let (hosts, refused, good_for) = match self.question.kind {
            Kind::Addresses { port } => (vec![(self.question.name.clone(), port)], 0, Duration::MAX),
            Kind::Services => {
                let services = self.ask.services(&self.question.name).await.inspect_err(|_| self.ask.failed())?;
                let (hosts, refused) = chosen(services.records);
                (hosts, refused, services.good_for)
            }
        };
        let hosts = self.hosts(hosts).await.inspect_err(|_| self.ask.failed())?;
        if hosts.partial {
            self.ask.failed();
        }
        let told = hosts.addresses.len();
        let addresses: Vec<_> = hosts.addresses.into_iter().filter(can_be_called).filter_map(Address::of).collect();
        let refused = refused + told - addresses.len();
        Ok(Resolved { addresses, refused, good_for: good_for.min(hosts.good_for), partial: hosts.partial })
    }
}

/// The hosts and ports of the lowest priority, each once, and how many records are of no use. A host "." says that there is no such service.
fn chosen(services: Vec<Service>) -> (Vec<(Name, u16)>, usize) {
    let told = services.len();
    let usable: Vec<_> = services.into_iter().filter(|service| service.port > 0 && !service.host.is_root()).collect();
    let refused = told - usable.len();
    let lowest = usable.iter().map(|service| service.priority).min();
    let hosts = usable.into_iter().filter(|service| Some(service.priority) == lowest).map(|service| (service.host, service.port));
    (hosts.collect::<BTreeSet<_>>().into_iter().take(MOST_HOSTS).collect(), refused)
}

/// Whether it is the address of one host. Nobody has these, or everybody.
fn can_be_called(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let everybody = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !everybody
}

#[cfg(test)]
mod tests;
