//! The adaptive limit under overload, and under concurrent cancellation on several threads.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use super::*;
use crate::task;

/// Concurrency of the simulated server without added latency.
const CAPACITY: usize = 20;
const BASE_LATENCY: Duration = Duration::from_millis(20);
/// Capacity of the simulated server, requests per second.
const MAX_RATE: u32 = 1_000;

/// Decrements the number of requests in flight when dropped.
struct InFlightGuard<'a>(&'a AtomicUsize);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Takes longer the more requests are in flight, like a shared processor with room for `capacity`.
async fn work(under_way: &AtomicUsize, capacity: usize) {
    let at_once = under_way.fetch_add(1, Relaxed) + 1;
    let _under = InFlightGuard(under_way);
    let share = f64::from(u32::try_from(at_once.max(capacity)).unwrap()) / f64::from(u32::try_from(capacity).unwrap());
    tokio::time::sleep(BASE_LATENCY.mul_f64(share)).await;
}

#[derive(Default)]
struct Tally {
    sent: AtomicU32,
    answered: AtomicU32,
}

#[tokio::test(start_paused = true)]
async fn double_load_keeps_goodput_and_critical_requests() {
    let layer = AdaptiveLimitLayer::new(Protocol::Http, &Config::default());
    let under_way = Arc::new(AtomicUsize::new(0));
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let under_way = under_way.clone();
        async move {
            work(&under_way, CAPACITY).await;
            answer(plain()).await
        }
    }));
    // One in ten requests is critical.
    let tallies: Arc<[Tally; 2]> = Arc::default();
    let mut limits = Vec::new();
    let (quiet, overload, settled) = (5, 25, 10);
    for second in 0..quiet + overload {
        let load = if second < quiet { MAX_RATE / 2 } else { MAX_RATE * 2 };
        let counts = second >= quiet + settled;
        for tick in 0..1_000 {
            tokio::time::advance(MS).await;
            for call in (tick * load / 1_000)..((tick + 1) * load / 1_000) {
                let important = call.is_multiple_of(10);
                let priority = if important { Priority::Critical } else { Priority::Default };
                let (service, tallies) = (service.clone(), tallies.clone());
                drop(task::spawn(async move {
                    let call = service.oneshot(request(priority, Some(Instant::now() + MS * 200)));
                    let answer = tokio::time::timeout(MS * 200, async { call.await.ok()?.into_body().collect().await.ok() }).await;
                    let tally = &tallies[usize::from(important)];
                    tally.sent.fetch_add(u32::from(counts), Relaxed);
                    tally.answered.fetch_add(u32::from(counts && matches!(answer, Ok(Some(_)))), Relaxed);
                }));
            }
        }
        if counts {
            limits.push(occupancy(&layer).limit);
        }
    }
    let [others, important] = &*tallies;
    let seconds = u32::try_from(overload - settled).unwrap();
    let answered = others.answered.load(Relaxed) + important.answered.load(Relaxed);
    assert!(answered * 10 >= MAX_RATE * seconds * 9, "{answered} answered in {seconds} s, limits {limits:?}");
    assert!(important.answered.load(Relaxed) * 100 >= important.sent.load(Relaxed) * 99, "limits {limits:?}");
    let (low, high) = (*limits.iter().min().unwrap(), *limits.iter().max().unwrap());
    assert!(low >= CAPACITY && high <= CAPACITY * 4, "limits {limits:?}");
}

/// Overload of a machine on which every request takes seconds at the initial limit. Returns the
/// number of answers per second and the 90th percentile of their latency, after 30 s.
async fn overload_of_slow_machine(quiet_requests: usize) -> (f64, Duration) {
    const CLIENTS: usize = 400;
    let layer = AdaptiveLimitLayer::new(Protocol::Http, &Config::default());
    let under_way = Arc::new(AtomicUsize::new(0));
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let under_way = under_way.clone();
        async move {
            work(&under_way, 1).await;
            answer(plain()).await
        }
    }));
    let call = async || {
        let answer = service.clone().oneshot(request(Priority::Default, None)).await.ok()?;
        answer.into_body().collect().await.ok()
    };
    for _ in 0..quiet_requests {
        call().await.unwrap();
    }
    let (started, settled, measured) = (Instant::now(), Duration::from_secs(30), Duration::from_secs(30));
    let client = async |_| {
        let mut latencies = Vec::new();
        while started.elapsed() < settled + measured {
            let sent = Instant::now();
            match call().await {
                Some(_) => latencies.extend((sent.duration_since(started) > settled).then(|| sent.elapsed())),
                None => tokio::time::sleep(MS * 100).await,
            }
        }
        latencies
    };
    let mut latencies = futures_util::future::join_all((0..CLIENTS).map(client)).await.concat();
    latencies.sort();
    let answered = f64::from(u32::try_from(latencies.len()).unwrap());
    (answered / measured.as_secs_f64(), latencies[latencies.len() * 9 / 10])
}

#[tokio::test(start_paused = true)]
async fn limit_falls_in_seconds_on_a_slow_machine() {
    let (rate, p90) = overload_of_slow_machine(500).await;
    assert!(rate > 45.0 && p90 < Duration::from_secs(1), "{rate} answers per second, {p90:?}");
    // Started under overload: the latency of the first windows is not the usual one.
    let (rate, p90) = overload_of_slow_machine(0).await;
    assert!(rate > 45.0 && p90 < Duration::from_secs(4), "{rate} answers per second, {p90:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_cancellation_leaks_no_permits() {
    const CALLS: usize = 4_000;
    let layer = AdaptiveLimitLayer::new(Protocol::Http, &Config { initial_limit: 4, min_limit: 2, max_limit: 8, ..Config::default() });
    let most = Arc::new(AtomicUsize::new(0));
    let under_way = Arc::new(AtomicUsize::new(0));
    let (at_once, highest) = (under_way.clone(), most.clone());
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let (under_way, most) = (at_once.clone(), highest.clone());
        async move {
            most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
            let _under = InFlightGuard(&under_way);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            answer(plain()).await
        }
    }));
    let calls = (0..CALLS).map(|call| {
        let service = service.clone();
        task::spawn(async move {
            // Some calls are cancelled after a few polls.
            let patience = if call % 5 < 2 { 1 + call % 9 } else { usize::MAX };
            let mut call = Box::pin(service.oneshot(request(Priority::ALL[call % 4], None)));
            for _ in 0..patience {
                if let std::task::Poll::Ready(result) = poll!(&mut call) {
                    return result.is_ok();
                }
                tokio::task::yield_now().await;
            }
            false
        })
    });
    let mut served = 0;
    for call in calls.collect::<Vec<_>>() {
        served += usize::from(call.await.unwrap());
    }
    assert!(served > 0);
    assert!((2..=8).contains(&most.load(Relaxed)), "{most:?} at once");
    let left = occupancy(&layer);
    assert_eq!((left.in_use, left.waiting, under_way.load(Relaxed)), (0, 0, 0));
}
