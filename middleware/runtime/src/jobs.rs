//! Background jobs of a service: supervised, tracked until shutdown, and part of readiness.

use std::future::Future;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{health::Readiness, process::Process};
use palisade_resilience::{
    job::{self, Heartbeat, STALL_LIMIT},
    setting::Invalid,
};

/// Background jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Failures of a background job in a row, after which readiness reports it. The service is not
    /// ready while a required job fails. A job that makes no progress for five minutes is reported
    /// at once, and restarted.
    pub max_failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_failures: 5 }
    }
}

impl Config {
    /// Checks the range of every value.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.max_failures == 0 { Err(Invalid::new("jobs.max_failures", "must be greater than 0")) } else { Ok(()) }
    }
}

/// Whether a service can do its work without a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Not ready before the job's first success, and while it fails.
    Required,
    /// Reported by readiness only.
    Optional,
}

/// Supervisor of the jobs of one service.
#[derive(Debug, Clone)]
pub struct Jobs {
    process: Process,
    readiness: Readiness,
    max_failures: u32,
}

/// Handles of one run of a job.
#[derive(Debug, Clone)]
pub struct Run {
    /// Records success and failure.
    pub heartbeat: Heartbeat,
    /// Cancelled when the job must end.
    pub stop: CancellationToken,
}

impl Jobs {
    /// Creates the supervisor of the service with this readiness.
    pub fn new(process: &Process, readiness: &Readiness, config: &Config) -> Self {
        Self { process: process.clone(), readiness: readiness.clone(), max_failures: config.max_failures }
    }

    /// Runs `job` until shutdown, which waits for it. Restarts it after a panic, an error or an
    /// early end, or without progress for [`STALL_LIMIT`].
    pub fn supervise<F, Fut>(&self, name: &'static str, need: Need, mut job: F) -> JobHealth
    where
        F: FnMut(Run) -> Fut + Send + 'static,
        Fut: Future<Output = job::Result> + Send + 'static,
    {
        let (health, stop) = (self.register(name, need), self.process.shutdown.clone());
        self.process
            .run(job::supervise(health.heartbeat.clone(), stop.clone(), move |heartbeat| job(Run { heartbeat, stop: stop.clone() })));
        health
    }

    /// Runs `job` until it returns `Ok`. Restarts it after a panic or an error.
    pub fn complete<F, Fut>(&self, name: &'static str, need: Need, mut job: F) -> JobHealth
    where
        F: FnMut(Run) -> Fut + Send + 'static,
        Fut: Future<Output = job::Result> + Send + 'static,
    {
        let (health, stop) = (self.register(name, need), self.process.shutdown.clone());
        self.process
            .run(job::complete(health.heartbeat.clone(), stop.clone(), move |heartbeat| job(Run { heartbeat, stop: stop.clone() })));
        health
    }

    /// Runs `preparation` until it returns `Ok`. The service is not ready before.
    pub fn prepare<F, Fut>(&self, name: &'static str, mut preparation: F) -> Prepared
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = job::Result> + Send + 'static,
    {
        let (done, prepared) = watch::channel(false);
        self.complete(name, Need::Required, move |_| {
            let (preparation, done) = (preparation(), done.clone());
            async move {
                preparation.await?;
                done.send_replace(true);
                Ok(())
            }
        });
        Prepared(prepared)
    }

    /// As [`Self::supervise`] for a job over `state` that starts after a preparation.
    pub fn supervise_after<T, Fut>(
        &self,
        prepared: &Prepared,
        (name, need): (&'static str, Need),
        state: T,
        job: impl Fn(T, Run) -> Fut + Clone + Send + 'static,
    ) -> JobHealth
    where
        T: Clone + Send + 'static,
        Fut: Future<Output = job::Result> + Send + 'static,
    {
        let prepared = prepared.clone();
        self.supervise(name, need, move |run| {
            let (job, state, prepared) = (job.clone(), state.clone(), prepared.clone());
            async move { if prepared.wait(&run).await { job(state, run).await } else { Ok(()) } }
        })
    }

    fn register(&self, name: &'static str, need: Need) -> JobHealth {
        let health = JobHealth { heartbeat: Heartbeat::new(name), max_failures: self.max_failures };
        let probed = health.clone();
        self.readiness.watch(name, need == Need::Required, self.process.shutdown.clone(), move || {
            let result = probed.check();
            async move { result }
        });
        health
    }
}

/// Preparation that other jobs wait for.
#[derive(Debug, Clone)]
pub struct Prepared(watch::Receiver<bool>);

impl Prepared {
    /// Waits for the preparation. Returns `false` after a stop.
    async fn wait(mut self, run: &Run) -> bool {
        matches!(run.stop.run_until_cancelled(run.heartbeat.pause(self.0.wait_for(|prepared| *prepared))).await, Some(Ok(_)))
    }
}

/// Health of a job.
#[derive(Debug, Clone)]
pub struct JobHealth {
    heartbeat: Heartbeat,
    max_failures: u32,
}

impl JobHealth {
    /// Returns the reason why the job does not work.
    pub fn check(&self) -> Result<(), String> {
        match self.heartbeat.failures() {
            _ if self.heartbeat.is_stalled() => Err(format!("no progress for {} seconds", STALL_LIMIT.as_secs())),
            _ if !self.heartbeat.is_running() => Err("not started yet".to_owned()),
            failures if failures >= self.max_failures => Err(format!("failed {failures} times in a row")),
            _ => Ok(()),
        }
    }

    /// Whether the job works.
    pub fn is_ok(&self) -> bool {
        self.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("out of order")]
    struct OutOfOrder;

    #[test]
    fn job_is_unhealthy_until_started_and_after_failures() {
        let health = JobHealth { heartbeat: Heartbeat::new("test"), max_failures: 3 };
        assert_eq!(health.check(), Err("not started yet".to_owned()));
        health.heartbeat.success();
        for _ in 0..2 {
            health.heartbeat.failure(&OutOfOrder);
        }
        assert!(health.is_ok());
        health.heartbeat.failure(&OutOfOrder);
        assert_eq!(health.check(), Err("failed 3 times in a row".to_owned()));
        health.heartbeat.success();
        assert!(health.is_ok());
    }
}
