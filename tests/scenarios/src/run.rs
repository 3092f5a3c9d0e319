//! Runs one scenario with one stack.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;
use palisade_middleware::task;
use tokio::{
    runtime,
    task::{JoinHandle, JoinSet},
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    caller::Caller,
    check,
    format::{CallGroup, ENTRY, Need, Scenario},
    network::{Listener, unique_host, url},
    observed::{CompletedCall, Epoch, Log, Observations},
    scripted::{Playback, router, serve},
    stack::{Client, Stack, call},
};

/// Time after which a scenario hangs: of the paused clock, and in real time.
const LIMITS: [Duration; 2] = [Duration::from_mins(9), Duration::from_mins(1)];
/// Time in which servers see the end of cancelled calls.
const SETTLE: Duration = Duration::from_millis(20);

/// Result of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All expectations were met.
    Passed,
    /// The stack lacks a technique.
    NotSupported(Need),
    /// Expectations that were not met.
    Wrong(Vec<String>),
}

/// Runs `scenario` with `stack`, in a runtime of its own.
pub fn run(scenario: &Scenario, stack: &dyn Stack) -> Outcome {
    if let Some(missing) = scenario.needs().into_iter().find(|need| !stack.provides(*need)) {
        return Outcome::NotSupported(missing);
    }
    match observe(scenario, stack) {
        Ok(observations) => {
            let wrong = check::check(scenario, &observations, stack);
            if wrong.is_empty() { Outcome::Passed } else { Outcome::Wrong(wrong) }
        }
        Err(error) => Outcome::Wrong(vec![format!("{error:#}")]),
    }
}

fn observe(scenario: &Scenario, stack: &dyn Stack) -> anyhow::Result<Observations> {
    let recorder = PrometheusBuilder::new().with_recommended_naming(true).build_recorder();
    let rendered = recorder.handle();
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(!stack.has_own_clock()).build()?;
    let limit = LIMITS[usize::from(stack.has_own_clock())];
    let mut observations = metrics::with_local_recorder(&recorder, || {
        let observations = runtime.block_on(async { timeout(limit, play(scenario, stack)).await.context("the scenario hangs")? })?;
        palisade_middleware::metrics::collect();
        anyhow::Ok(observations)
    })?;
    observations.metrics = rendered.render();
    Ok(observations)
}

/// Plays the scenario to its end.
async fn play(scenario: &Scenario, stack: &dyn Stack) -> anyhow::Result<Observations> {
    let epoch = Epoch::now();
    let mut background = JoinSet::new();
    let mut hosts = BTreeMap::new();
    let mut logs = BTreeMap::new();
    for (name, script) in &scenario.servers {
        let (host, log) = (unique_host(name), Log::new(epoch));
        background.spawn(serve(host.clone(), Playback::new(script, log.clone())));
        hosts.insert(name.clone(), url(&host));
        logs.insert(name.clone(), log);
    }
    // The servers listen before the first call.
    tokio::task::yield_now().await;
    let urls: Vec<_> = hosts.values().cloned().collect();
    let client = if urls.is_empty() { None } else { Some(stack.client(&urls, &scenario.client)?) };
    let set_endpoints = client.as_ref().map(|client| client.set_endpoints.clone());
    let (shutdown, mut entry) = (CancellationToken::new(), None);
    let mut target = None;
    if let Some(under_test) = &scenario.entry {
        let (host, log) = (unique_host(ENTRY), Log::new(epoch));
        let handler = router(Playback::new(&under_test.handler, log.clone()), client.clone().filter(|_| under_test.forwards));
        let listener = Listener::bind(&host, Some(log.clone()));
        let serving = stack.serve(listener, &under_test.policy, handler, shutdown.clone())?;
        entry = Some(task::spawn(async move {
            serving.await;
            epoch.elapsed_ms()
        }));
        logs.insert(ENTRY.to_owned(), log);
        target = Some(host);
    }
    for event in scenario.events.clone() {
        let urls = event.endpoints.map(|names| names.iter().filter_map(|name| hosts.get(name).cloned()).collect::<Vec<_>>());
        let (set_endpoints, shutdown) = (set_endpoints.clone(), shutdown.clone());
        background.spawn(async move {
            sleep_until(epoch.at(event.at_ms)).await;
            if let (Some(urls), Some(set_endpoints)) = (urls, set_endpoints) {
                set_endpoints(&urls);
            }
            if event.shutdown {
                shutdown.cancel();
            }
        });
    }
    let mut callers = BTreeMap::new();
    let groups: Vec<_> = scenario
        .calls
        .iter()
        .map(|group| {
            let target = match (&target, &client) {
                (Some(host), _) => {
                    Target::Entry(callers.entry(group.caller).or_insert_with(|| Arc::new(Caller::new(host, group.caller))).clone())
                }
                (None, Some(client)) => Target::Client(client.clone()),
                (None, None) => unreachable!("a scenario without a target is invalid"),
            };
            task::spawn(run_group(epoch, group.clone(), target))
        })
        .collect();
    let mut calls = Vec::new();
    for group in groups {
        calls.push(group.await??);
    }
    let stopped_ms = wait_for_stop(scenario, entry).await?;
    sleep(SETTLE).await;
    let servers = logs.iter().map(|(name, log)| (name.clone(), log.take())).collect();
    Ok(Observations { calls, servers, stopped_ms, metrics: String::new() })
}

/// Waits for the end of a server that is shut down.
async fn wait_for_stop(scenario: &Scenario, entry: Option<JoinHandle<u64>>) -> anyhow::Result<Option<u64>> {
    match entry {
        Some(entry) if scenario.events.iter().any(|event| event.shutdown) => Ok(Some(entry.await?)),
        _ => Ok(None),
    }
}

/// Receiver of the calls.
#[derive(Clone)]
enum Target {
    Client(Client),
    Entry(Arc<Caller>),
}

async fn run_group(epoch: Epoch, group: CallGroup, target: Target) -> anyhow::Result<Vec<CompletedCall>> {
    sleep_until(epoch.at(group.at_ms)).await;
    let mut done = Vec::new();
    if group.sequential {
        for number in 0..group.count {
            if number > 0 {
                sleep(Duration::from_millis(group.every_ms)).await;
            }
            done.push(run_call(epoch, &group, &target).await);
        }
        return Ok(done);
    }
    let mut running = Vec::new();
    for number in 0..group.count {
        if number > 0 && group.every_ms > 0 {
            sleep_until(epoch.at(group.at_ms + u64::from(number) * group.every_ms)).await;
        }
        let (group, target) = (group.clone(), target.clone());
        running.push(task::spawn(async move { run_call(epoch, &group, &target).await }));
    }
    for call in running {
        done.push(call.await?);
    }
    Ok(done)
}

async fn run_call(epoch: Epoch, group: &CallGroup, target: &Target) -> CompletedCall {
    let started_ms = epoch.elapsed_ms();
    let making = async {
        match target {
            Target::Client(client) => call(client, group.method, group.deadline_ms.map(Duration::from_millis)).await,
            Target::Entry(caller) => caller.call(group).await,
        }
    };
    let result = match group.cancel_after_ms {
        Some(ms) => timeout(Duration::from_millis(ms), making).await.unwrap_or_else(|_| Err(Status::cancelled("by the caller"))),
        None => making.await,
    };
    let (code, message, pushback) = match result {
        Ok(()) => (Code::Ok, String::new(), None),
        Err(status) => {
            let pushback = status.metadata().get("grpc-retry-pushback-ms").and_then(|value| value.to_str().ok()).map(str::to_owned);
            (status.code(), status.message().to_owned(), pushback)
        }
    };
    CompletedCall { started_ms, ended_ms: epoch.elapsed_ms(), code, message, pushback }
}
