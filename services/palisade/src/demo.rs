//! `palisade demo`: a small bounded load on a running all-in-one, with a fault every minute.

mod load;
mod schedule;

use std::{collections::BTreeMap, io::Write, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    load::Shop,
    schedule::{Fault, fault_at},
};

/// Maximum requests in flight. More are left out, so that a hanging service bounds the load.
const MAX_IN_FLIGHT: usize = 64;

/// Options of the command.
#[derive(Debug)]
pub(crate) struct Options {
    /// Base URL of the gateway.
    pub(crate) url: String,
    /// Base URL of the gateway's admin port.
    pub(crate) admin_url: String,
    /// Bearer token with all user scopes.
    pub(crate) token: String,
    /// Requests per second.
    pub(crate) rate: u32,
    /// Duration.
    pub(crate) duration: Duration,
}

/// Sends the load until the end of the duration, or until the process is asked to end. Removes the
/// fault in either case.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let shop = Shop::open(options).await?;
    let admin = Admin { http: shop.http().clone(), url: options.admin_url.clone() };
    admin.set(None).await?;
    print(&format!("{} requests/s for {} s, see {}/console", options.rate, options.duration.as_secs(), options.admin_url))?;
    let result = send_load(&shop, &admin, options).await;
    admin.set(None).await?;
    print(&format!("responses: {}", result?))
}

async fn send_load(shop: &Shop<'_>, admin: &Admin, options: &Options) -> anyhow::Result<String> {
    let started = Instant::now();
    let mut requests = interval(Duration::from_secs(1) / options.rate);
    requests.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seconds = interval(Duration::from_secs(1));
    let (mut in_flight, mut responses) = (FuturesUnordered::new(), BTreeMap::<String, u64>::new());
    let (mut fault, mut number) = (None, 0);
    // One for the whole loop: a signal during a change of the faults is not lost.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let mut asked_to_end = FuturesUnordered::new();
    for received in &mut signals {
        match received {
            Ok(received) => asked_to_end.push(received.recv()),
            Err(error) => bail!("cannot receive signals: {error}"),
        }
    }
    loop {
        tokio::select! {
            _ = requests.tick() => if in_flight.len() < MAX_IN_FLIGHT {
                in_flight.push(shop.send(number));
                number += 1;
            },
            Some(status) = in_flight.next() => *responses.entry(status).or_default() += 1,
            _ = seconds.tick() => {
                let next = fault_at(started.elapsed());
                if next.map(|fault| fault.text) != fault {
                    admin.set(next).await?;
                    fault = next.map(|fault| fault.text);
                    print(fault.unwrap_or("fault removed"))?;
                }
            }
            () = sleep_until(started + options.duration) => break,
            _ = asked_to_end.next() => break,
        }
    }
    while let Some(status) = in_flight.next().await {
        *responses.entry(status).or_default() += 1;
    }
    Ok(responses.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>().join(", "))
}

/// Client of the fault switches of the console.
struct Admin {
    http: reqwest::Client,
    url: String,
}

impl Admin {
    /// Replaces the faults of all services that the demo breaks.
    async fn set(&self, fault: Option<&Fault>) -> anyhow::Result<()> {
        for service in schedule::SERVICES {
            let rules: Vec<Value> = fault.into_iter().filter(|fault| fault.service == service).map(Fault::rule).collect();
            let url = format!("{}/console/services/{service}/faults", self.url);
            let body = json!({ "rules": rules }).to_string();
            let response = self.http.put(&url).body(body).send().await.with_context(|| format!("cannot reach {url}"))?;
            if !response.status().is_success() {
                bail!("{url} answered {}: the demo needs the setting console, and the development key", response.status());
            }
        }
        Ok(())
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
