use std::sync::Mutex;

use super::*;
use crate::event::tests::event;

/// In-memory outbox. Its lease can be held by another relay.
#[derive(Default)]
struct MemoryOutbox {
    unpublished: Mutex<Vec<Event>>,
    published: Mutex<Vec<(String, i64)>>,
    rejections: Mutex<u32>,
    leased_elsewhere: bool,
    leases: Mutex<Vec<Destination>>,
    /// Number of fetches that fail or panic.
    faults: Mutex<u32>,
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn lease(&self, _: Uuid, destination: Destination, _: Duration) -> Result<Lease, Error> {
        self.leases.lock().unwrap().push(destination);
        Ok(if self.leased_elsewhere { Lease::HeldByAnother } else { Lease::Held })
    }

    async fn fetch_unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            let left = faults.saturating_sub(1);
            std::mem::replace(&mut *faults, left)
        };
        assert!(fault % 2 == 0, "a bug in the outbox");
        if fault > 0 {
            return Err("the outbox is unavailable".into());
        }
        Ok(self.unpublished.lock().unwrap().iter().take(limit as usize).cloned().collect())
    }

    async fn mark_published(&self, events: &[Event], _: Destination) -> Result<(), Error> {
        self.unpublished.lock().unwrap().retain(|event| !events.iter().any(|published| published.id == event.id));
        self.published.lock().unwrap().extend(events.iter().map(|event| (event.subject.clone(), event.sequence)));
        Ok(())
    }

    async fn mark_failed(&self, events: &[(Event, String)], _: u32) -> Result<u64, Error> {
        *self.rejections.lock().unwrap() += u32::try_from(events.len())?;
        Ok(0)
    }

    async fn wait_for_events(&self, timeout: Duration) {
        tokio::time::sleep(timeout).await;
    }
}

fn relay(outbox: &Arc<MemoryOutbox>, config: Config) -> Relay {
    Relay::new(outbox.clone(), Broker::new(&config).unwrap(), Topic::ORDERS, config)
}

#[tokio::test]
async fn relay_publishes_all_events_in_subject_order() {
    let unpublished = vec![event("a", 1), event("b", 1), event("a", 2), event("a", 3), event("b", 2)];
    let outbox = Arc::new(MemoryOutbox { unpublished: Mutex::new(unpublished), ..MemoryOutbox::default() });
    let relay = relay(&outbox, Config { batch: 4, ..Config::default() });
    assert_eq!(relay.run_batch().await.unwrap(), BatchResult::More);
    assert_eq!(relay.run_batch().await.unwrap(), BatchResult::Idle);
    assert_eq!(relay.run_batch().await.unwrap(), BatchResult::Idle);
    let published = outbox.published.lock().unwrap().clone();
    let sequences = |subject| published.iter().filter(|(of, _)| of == subject).map(|(_, sequence)| *sequence).collect::<Vec<_>>();
    assert_eq!((sequences("a"), sequences("b")), (vec![1, 2, 3], vec![1, 2]));
}

#[tokio::test]
async fn relay_publishes_only_with_the_lease() {
    let outbox = Arc::new(MemoryOutbox { unpublished: Mutex::new(vec![event("a", 1)]), leased_elsewhere: true, ..MemoryOutbox::default() });
    assert_eq!(relay(&outbox, Config::default()).run_batch().await.unwrap(), BatchResult::NotLeaseHolder);
    assert_eq!(outbox.unpublished.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn relay_retains_events_while_broker_is_down() {
    let outbox = Arc::new(MemoryOutbox { unpublished: Mutex::new(vec![event("a", 1), event("a", 2)]), ..MemoryOutbox::default() });
    let config = Config { nats_url: Some("nats://127.0.0.1:9".into()), ..Config::default() };
    let relay = relay(&outbox, config);
    assert_eq!(relay.run_batch().await.unwrap(), BatchResult::Blocked);
    assert_eq!((outbox.unpublished.lock().unwrap().len(), *outbox.rejections.lock().unwrap()), (2, 0));
}

#[tokio::test]
async fn relay_survives_errors_and_panics_of_its_outbox() {
    let unpublished = vec![event("a", 1), event("a", 2)];
    let outbox = Arc::new(MemoryOutbox { unpublished: Mutex::new(unpublished), faults: Mutex::new(4), ..MemoryOutbox::default() });
    let relay = Arc::new(relay(&outbox, Config { poll_ms: 1, ..Config::default() }));
    let (stop, heartbeat) = (CancellationToken::new(), Heartbeat::new("relay"));
    let (run_stop, run_relay) = (stop.clone(), relay.clone());
    let running = palisade_middleware::job::supervise(heartbeat.clone(), stop.clone(), move |heartbeat| {
        let (relay, stop) = (run_relay.clone(), run_stop.clone());
        async move {
            relay.run(&heartbeat, &stop).await;
            Ok(())
        }
    });
    let published = async {
        while outbox.published.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(running, published);
    assert_eq!((*outbox.faults.lock().unwrap(), heartbeat.failures()), (0, 0));
}

#[tokio::test]
async fn relay_to_a_broker_claims_an_empty_outbox() {
    let outbox = Arc::new(MemoryOutbox::default());
    let config = Config { nats_url: Some("nats://127.0.0.1:9".into()), ..Config::default() };
    let (relay, stop) = (relay(&outbox, config), CancellationToken::new());
    let claimed = async {
        while outbox.leases.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let heartbeat = Heartbeat::new("relay");
    tokio::join!(relay.run(&heartbeat, &stop), claimed);
    assert_eq!(*outbox.leases.lock().unwrap(), [Destination::Broker; 2]);
}
