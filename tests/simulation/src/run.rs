//! One run: prepares the stores, drives the simulation and checks the invariants.

mod faults;

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::FutureExt;
use palisade_events::{Broker, SubscriptionItem, Topic};
use palisade_middleware::{auth::Subject, telemetry::Telemetry};
use palisade_products::{
    product::{Input, ValidatedProduct},
    store::{Maintenance as _, ProductStore as _},
};
use uuid::Uuid;

use self::faults::Faults;
use crate::{
    client::{Client, Journal, user},
    clock::{START, SimulatedClock},
    disk::{Disk, Executor},
    invariants::{OrdersCheck, ProductsCheck, at_end},
    plan::Plan,
    services::{Host, SigningKeys},
    store,
    story::{Story, Violation},
};

/// Time after the faults within which every order must come to an end.
const LIVENESS: Duration = Duration::from_mins(1);
/// Duration of a step of the simulation.
const TICK: Duration = Duration::from_millis(5);
/// Steps after the end, half a second.
const LAST_STEPS: usize = 100;
/// Interval of the checks for an end.
const QUIET_INTERVAL: Duration = Duration::from_millis(500);

/// Result of a run.
pub struct Outcome {
    /// Record of the run.
    pub story: Story,
    /// First broken invariant.
    pub violation: Option<Violation>,
    /// Number of orders.
    pub orders: usize,
    /// Number of calls of the stores, and of failed ones.
    pub store_calls: (u64, u64),
    /// Simulated duration.
    pub simulated: Duration,
}

/// The stores of a run, whose threads have started.
pub struct Stores {
    executor: Executor,
    orders: Arc<palisade_orders::store::SqliteStore>,
    products: Arc<palisade_products::store::SqliteStore>,
    orders_check: Arc<OrdersCheck>,
    products_check: Arc<ProductsCheck>,
    catalogue: Vec<Uuid>,
}

impl Stores {
    /// Opens the stores in an empty directory and writes the catalogue of `plan`. Uses every
    /// connection once, so that all threads exist before randomness is seeded.
    pub fn open(directory: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let executor = Executor::start()?;
        let (directory, stock, own) = (directory.to_owned(), plan.stock.clone(), executor.clone());
        let open = async move {
            let [orders_file, products_file] = ["orders.db", "products.db"].map(|name| directory.join(name));
            let orders = Arc::new(palisade_orders::store::SqliteStore::new(&format!("sqlite://{}", orders_file.display()))?);
            let products = Arc::new(palisade_products::store::SqliteStore::new(&format!("sqlite://{}", products_file.display()))?);
            palisade_orders::store::Maintenance::migrate(&*orders).await?;
            products.migrate().await?;
            let mut catalogue = Vec::new();
            for (number, quantity) in (1_u128..).zip(stock) {
                let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | number);
                let draft = draft(number, quantity)?;
                products.create(id, draft, None, Subject::parse("admin")?, START).await?;
                catalogue.push(id);
            }
            for _ in 0..4 {
                let reads = (0..8).map(|_| products.find(catalogue[0]));
                futures_util::future::try_join_all(reads).await?;
                let reads = (0..8).map(|_| palisade_orders::store::OrderStore::find(&*orders, catalogue[0].into()));
                futures_util::future::try_join_all(reads).await?;
            }
            let (orders_check, products_check) =
                (Arc::new(OrdersCheck::open(&orders_file).await?), Arc::new(ProductsCheck::open(&products_file).await?));
            orders_check.check().await;
            products_check.check().await;
            anyhow::Ok(Self { executor: own, orders, products, orders_check, products_check, catalogue })
        };
        executor.wait(open).ok_or_else(|| anyhow::anyhow!("the stores cannot be opened"))?
    }
}

fn draft(number: u128, quantity: i64) -> anyhow::Result<ValidatedProduct> {
    let input = Input {
        name: format!("Product {number}"),
        description: String::new(),
        price_minor: 100 * i64::try_from(number)? + 99,
        quantity,
        category: "simulation".to_owned(),
        is_active: true,
    };
    ValidatedProduct::new(input).map_err(|violations| anyhow::anyhow!("{violations:?}"))
}

/// Consumer of the events of orders. Never crashes.
async fn consume((journal, story): (Journal, Story)) -> turmoil::Result {
    let mut events = Broker::new(&palisade_events::Config::default())?.subscribe(Topic::ORDERS);
    loop {
        if let SubscriptionItem::Event(event) = events.next().await
            && let Ok(order) = event.subject.parse()
        {
            journal.received(&story, order, event.sequence);
        }
    }
}

/// Adds the hosts with services. Returns their clocks, with the skew of each.
fn add_hosts(
    sim: &mut turmoil::Sim<'_>,
    plan: &Arc<Plan>,
    (orders, products): (&store::orders::SimulatedStore, &store::products::SimulatedStore),
    keys: &SigningKeys,
    telemetry: &Telemetry,
) -> Vec<(String, i64, SimulatedClock)> {
    let mut clocks = Vec::new();
    for (name, skew_ms) in plan.hosts().into_iter().zip(&plan.skews_ms) {
        let clock = SimulatedClock::default();
        clock.set_skew_ms(*skew_ms);
        clocks.push((name.clone(), *skew_ms, clock.clone()));
        let host = Host { clock, keys: keys.clone(), telemetry: telemetry.clone(), plan: plan.clone() };
        match name.split('-').next() {
            Some("orders") => {
                let store = Arc::new(store::orders::SimulatedStore { host: name.clone(), ..orders.clone() });
                sim.host(name, move || host.clone().orders(store.clone()));
            }
            Some("products") => {
                let store = Arc::new(store::products::SimulatedStore { host: name.clone(), ..products.clone() });
                sim.host(name, move || host.clone().products(store.clone()));
            }
            _ => sim.host(name, move || host.clone().gateway()),
        }
    }
    clocks
}

/// Runs `plan` to its end. Randomness of the operating system must follow the seed.
pub fn run(plan: Plan, stores: Stores, keys: &SigningKeys, telemetry: &Telemetry) -> anyhow::Result<Outcome> {
    let plan = Arc::new(plan);
    let story = Story::default();
    let Stores { executor, orders, products, orders_check, products_check, catalogue } = stores;
    let check = orders_check.clone();
    let check_orders = move || {
        let check = check.clone();
        async move { check.check().await }.boxed()
    };
    let check = products_check.clone();
    let check_products = move || {
        let check = check.clone();
        async move { check.check().await }.boxed()
    };
    let orders_disk = Arc::new(Disk::new("orders", executor.clone(), story.clone(), Arc::new(check_orders), plan.seed ^ 1));
    let products_disk = Arc::new(Disk::new("products", executor.clone(), story.clone(), Arc::new(check_products), plan.seed ^ 2));
    let shared = |replicas: usize| (replicas > 1).then(SimulatedClock::default);
    let orders_store = store::orders::SimulatedStore {
        inner: orders,
        disk: orders_disk.clone(),
        server_clock: shared(plan.orders_replicas),
        host: String::new(),
    };
    let products_store = store::products::SimulatedStore {
        inner: products,
        disk: products_disk.clone(),
        server_clock: shared(plan.products_replicas),
        host: String::new(),
    };

    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .epoch(START.into())
        .simulation_duration(Duration::from_mins(10))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(plan.latency_ms))
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    let clocks = add_hosts(&mut sim, &plan, (&orders_store, &products_store), keys, telemetry);
    let journal = Journal::default();
    for client in &plan.clients {
        let name = user(client.number);
        let client = Client::new(client.clone(), plan.clone(), keys, catalogue.clone(), journal.clone(), story.clone())?;
        sim.client(name, client.run());
    }

    let consumer = (journal.clone(), story.clone());
    sim.host("consumer", move || consume(consumer.clone()));

    let mut faults = Faults::new(&plan, clocks, [("orders", orders_disk.clone()), ("products", products_disk.clone())], story.clone());
    let heal = Duration::from_millis(plan.heal_ms);
    let mut next_check = heal;
    loop {
        faults.apply(&mut sim);
        if let Err(error) = sim.step() {
            story.violate("the services keep running", error.to_string());
        }
        if story.violation().is_some() || sim.elapsed() > heal + LIVENESS {
            break;
        }
        if sim.elapsed() >= next_check {
            next_check = sim.elapsed() + QUIET_INTERVAL;
            let check = orders_check.clone();
            let data = executor.wait(async move { check.read().await }).ok_or_else(|| anyhow::anyhow!("cannot read the orders"))??;
            if journal.finished_clients() == plan.clients.len() && at_end::is_quiet(&data) {
                break;
            }
        }
    }
    // The last events are still on their way to the consumer.
    for _ in 0..LAST_STEPS {
        if story.violation().is_none()
            && let Err(error) = sim.step()
        {
            story.violate("the services keep running", error.to_string());
        }
    }
    let (check_orders, check_products) = (orders_check, products_check);
    if story.violation().is_none() && journal.finished_clients() < plan.clients.len() {
        story.violate("requests succeed after the faults", "a client still waits for a definite response");
    }
    let data = executor.wait(async move { anyhow::Ok((check_orders.read().await?, check_products.read().await?)) });
    let (data, stock) = data.ok_or_else(|| anyhow::anyhow!("cannot read the data"))??;
    if story.violation().is_none() {
        at_end::check_ended(&data, &story);
        at_end::check_agreement(&data, &stock, &story);
        at_end::check_promises(&data, &journal, &story);
    }
    let store_calls = [orders_disk.calls(), products_disk.calls()];
    Ok(Outcome {
        violation: story.violation(),
        orders: data.len(),
        store_calls: (store_calls[0].0 + store_calls[1].0, store_calls[0].1 + store_calls[1].1),
        simulated: sim.elapsed(),
        story,
    })
}
