//! Hold expiry and the sweeper.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use palisade_middleware::{
    clock::{Clock, ManualClock},
    job::Heartbeat,
    jobs::Run,
    task,
};
use palisade_products::{store::MongoStore, sweeper};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::fixtures::{HOLD, START, TestStore};

pub(crate) async fn expired_holds_are_released_in_batches(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    for _ in 0..5 {
        fixture.hold(&[(product, 2)]).await;
    }
    let just_before = START + HOLD - Duration::from_millis(1);
    assert_eq!(fixture.store.expire_due(just_before, 3).await.unwrap(), 0);
    assert_eq!(fixture.store.audit(START + HOLD).await.unwrap().overdue_holds, 5);
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(fixture.store.expire_due(START + HOLD, 3).await.unwrap());
    }
    assert_eq!(batches, [3, 2, 0]);
    assert_eq!(fixture.available(product).await, 10);
    fixture.assert_balanced().await;
}

fn run(stop: &CancellationToken) -> Run {
    Run { heartbeat: Heartbeat::new("test"), stop: stop.clone() }
}

pub(crate) async fn sweeper_runs_until_stopped(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    fixture.hold(&[(product, 2)]).await;
    let clock = ManualClock::new(START);
    let stop = CancellationToken::new();
    let sweeper = task::spawn(sweeper::run(Arc::clone(&fixture.store), Arc::new(clock.clone()), Duration::from_millis(1), run(&stop)));
    for _ in 0..3 {
        assert_eq!(fixture.available(product).await, 8, "the hold has not expired");
    }
    clock.advance(HOLD);
    while fixture.available(product).await < 10 {}
    stop.cancel();
    sweeper.await.unwrap().unwrap();
}

/// Counts the reads of the clock: one at the start of each sweep.
#[derive(Debug, Default)]
struct CountingClock(AtomicU32);

impl Clock for CountingClock {
    fn now(&self) -> OffsetDateTime {
        self.0.fetch_add(1, Ordering::Relaxed);
        START
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeper_survives_errors() {
    let dead = MongoStore::new("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=1").await.unwrap();
    let clock = Arc::new(CountingClock::default());
    let stop = CancellationToken::new();
    let sweeper = task::spawn(sweeper::run(Arc::new(dead), clock.clone(), Duration::from_millis(1), run(&stop)));
    while clock.0.load(Ordering::Relaxed) < 4 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    sweeper.await.unwrap().unwrap();
}
