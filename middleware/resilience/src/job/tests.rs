use std::{future::pending, sync::atomic::AtomicUsize};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("out of order")]
struct OutOfOrder;

/// Ways in which a run of a job goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Panic,
    PanicBeforeTheFirstAwait,
    Error,
    EarlyEnd,
}

/// Supervises a job whose first `faults` runs fail. Returns the number of runs and the heartbeat.
async fn run(fault: Fault, faults: usize) -> (usize, Heartbeat) {
    let (runs, stop, heartbeat) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new(), Heartbeat::new("test"));
    let (counter, stopping) = (runs.clone(), stop.clone());
    let job = move |heartbeat: Heartbeat| {
        let run = counter.fetch_add(1, Ordering::Relaxed);
        assert!(run >= faults || !matches!(fault, Fault::PanicBeforeTheFirstAwait), "on purpose");
        let stop = stopping.clone();
        async move {
            if run < faults {
                match fault {
                    Fault::Error => return Err(OutOfOrder.into()),
                    Fault::EarlyEnd => return Ok(()),
                    Fault::Panic | Fault::PanicBeforeTheFirstAwait => panic!("on purpose"),
                }
            }
            heartbeat.success();
            stop.cancel();
            Ok(())
        }
    };
    supervise(heartbeat.clone(), stop, job).await;
    (runs.load(Ordering::Relaxed), heartbeat)
}

#[tokio::test(start_paused = true)]
async fn job_is_restarted_after_every_kind_of_fault() {
    for fault in [Fault::Panic, Fault::PanicBeforeTheFirstAwait, Fault::Error, Fault::EarlyEnd] {
        let (recorder, started) = (PrometheusBuilder::new().build_recorder(), Instant::now());
        let handle = recorder.handle();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (runs, heartbeat) = run(fault, 9).await;
        assert_eq!((runs, heartbeat.failures(), heartbeat.is_running()), (10, 0, true), "{fault:?}");
        // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 + 10 + 10 seconds, ±20 %.
        let took = started.elapsed().as_secs_f64();
        assert!((26.0..39.4).contains(&took), "{fault:?}: {took}");
        let text = handle.render();
        assert!(text.contains(r#"palisade_job_restarts{name="test"} 9"#), "{text}");
        assert!(text.contains(r#"palisade_job_failures{name="test"} 0"#), "{text}");
        assert!(!text.contains(r#"palisade_job_last_success{name="test"} 0"#), "{text}");
        let panics = matches!(fault, Fault::Panic | Fault::PanicBeforeTheFirstAwait);
        assert_eq!(text.contains("palisade_panics 9"), panics, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn success_resets_the_backoff() {
    let (started, stop, heartbeat) = (Instant::now(), CancellationToken::new(), Heartbeat::new("test"));
    let mut runs = 0;
    let stopping = stop.clone();
    let job = move |heartbeat: Heartbeat| {
        runs += 1;
        if runs == 100 {
            stopping.cancel();
        }
        async move {
            heartbeat.success();
            Err(OutOfOrder.into())
        }
    };
    supervise(heartbeat, stop, job).await;
    assert!(started.elapsed() < Duration::from_secs(13), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn completed_job_is_not_restarted() {
    let (stop, heartbeat) = (CancellationToken::new(), Heartbeat::new("test"));
    let mut runs = 0;
    let job = |_| {
        runs += 1;
        let fails = runs < 3;
        async move { if fails { Err(OutOfOrder.into()) } else { Ok(()) } }
    };
    complete(heartbeat.clone(), stop, job).await;
    assert_eq!((runs, heartbeat.is_running()), (3, true));
}

#[tokio::test(start_paused = true)]
async fn stop_ends_backoff_and_unfinished_job() {
    let stop = CancellationToken::new();
    stop.cancel();
    complete(Heartbeat::new("test"), stop.clone(), |_| pending()).await;
    supervise(Heartbeat::new("test"), stop, async |_: Heartbeat| Err(OutOfOrder.into())).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_job_has_a_heartbeat() {
    let heartbeat = Heartbeat::new("test");
    heartbeat.failure(&OutOfOrder);
    heartbeat.idle(tokio::time::sleep(Duration::from_mins(1))).await;
    assert_eq!((heartbeat.failures(), heartbeat.is_running()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn stalled_run_is_reported_and_replaced() {
    let (stop, heartbeat) = (CancellationToken::new(), Heartbeat::new("test"));
    let (stopping, mut runs) = (stop.clone(), 0);
    let job = move |heartbeat: Heartbeat| {
        runs += 1;
        let (run, stop) = (runs, stopping.clone());
        async move {
            heartbeat.pause(tokio::time::sleep(3 * STALL_LIMIT)).await;
            if run == 1 {
                heartbeat.success();
                pending::<()>().await;
            }
            assert!(heartbeat.is_stalled() && heartbeat.failures() == 1);
            heartbeat.success();
            stop.cancel();
            Ok(())
        }
    };
    let started = Instant::now();
    supervise(heartbeat.clone(), stop, job).await;
    assert!(!heartbeat.is_stalled() && heartbeat.failures() == 0);
    // Two pauses, the stall, and the backoff.
    assert_eq!(started.elapsed().as_secs() / STALL_LIMIT.as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn slow_work_with_signs_of_life_is_no_stall() {
    const STEP: Duration = STALL_LIMIT.checked_sub(Duration::from_secs(1)).unwrap();
    let (stop, heartbeat) = (CancellationToken::new(), Heartbeat::new("test"));
    let stopping = stop.clone();
    let job = move |heartbeat: Heartbeat| {
        let stop = stopping.clone();
        async move {
            for step in 0..10 {
                tokio::time::sleep(STEP).await;
                if step % 2 == 0 { heartbeat.success() } else { heartbeat.failure(&OutOfOrder) }
            }
            heartbeat.success();
            stop.cancel();
            Ok(())
        }
    };
    let started = Instant::now();
    supervise(heartbeat, stop, job).await;
    assert_eq!(started.elapsed(), 10 * STEP);
}

#[tokio::test(start_paused = true)]
async fn duty_cycle_limits_frequency_and_stops_at_once() {
    let (stop, started) = (CancellationToken::new(), Instant::now());
    let (mut durations, mut run_times) = ([1, 0, 10, 0, 1_000].into_iter(), Vec::new());
    let stopped = stop.clone();
    let work = || {
        run_times.push(started.elapsed().as_secs());
        let takes = durations.next().unwrap();
        if takes == 1_000 {
            stopped.cancel();
        }
        tokio::time::sleep(Duration::from_secs(takes))
    };
    run_with_duty_cycle(Duration::from_mins(1), (&Heartbeat::new("test"), stop), work).await;
    assert_eq!(run_times, [0, 61, 121, 321, 381]);
    assert_eq!(started.elapsed().as_secs(), 381);
}
