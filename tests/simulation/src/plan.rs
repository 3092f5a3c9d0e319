//! The plan of a run: clients, hosts and faults, derived from the seed alone.

mod faults;

use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use faults::{Fault, FaultKind};

/// Time at which the clients begin and the first fault may occur, milliseconds. The services have
/// started and the catalogue exists by then.
pub const BEGIN_MS: u64 = 2_000;

/// All decisions that are made before a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Number of replicas of orders. Several share one database.
    pub orders_replicas: usize,
    /// Number of replicas of products. Several share one database.
    pub products_replicas: usize,
    /// The clients, each with a user of its own.
    pub clients: Vec<ClientPlan>,
    /// Opening stock of the products. The first is the hot one.
    pub stock: Vec<i64>,
    /// Clock skew of each host in [`Plan::hosts`], milliseconds.
    pub skews_ms: Vec<i64>,
    /// Maximum latency of a message, milliseconds.
    pub latency_ms: u64,
    /// Time at which all faults end and clients only finish, milliseconds.
    pub heal_ms: u64,
    /// Deadline of a saga, milliseconds.
    pub saga_deadline_ms: u64,
    /// The faults, by time.
    pub faults: Vec<Fault>,
    /// Whether the seed has no fault, so that every request must succeed.
    pub is_baseline: bool,
}

/// Behaviour of one client.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientPlan {
    /// Number of the client, also after others were removed.
    pub number: usize,
    /// Seed of its decisions.
    pub seed: u64,
    /// Maximum time between two requests, milliseconds.
    pub think_ms: u64,
    /// Share of orders for the hot product.
    pub hot_share: f64,
    /// Share of requests that are sent twice at the same time.
    pub duplicates: f64,
    /// Timeout of a request, milliseconds.
    pub timeout_ms: u64,
}

impl Plan {
    /// Derives the plan.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let orders_replicas = if random.random_bool(0.5) { 2 } else { 1 };
        let products_replicas = if random.random_bool(0.3) { 2 } else { 1 };
        let heal_ms = BEGIN_MS + random.random_range(4_000..=9_000);
        let clients = (0..random.random_range(2..=4)).map(|number| ClientPlan::draw(number, &mut random)).collect();
        let mut stock = vec![random.random_range(3..=12)];
        stock.extend((0..random.random_range(1..=3)).map(|_| random.random_range(10..=60)));
        let mut plan = Self {
            seed,
            orders_replicas,
            products_replicas,
            clients,
            stock,
            skews_ms: Vec::new(),
            latency_ms: random.random_range(2..=40),
            heal_ms,
            saga_deadline_ms: random.random_range(1_500..=15_000),
            faults: Vec::new(),
            is_baseline: false,
        };
        plan.skews_ms = plan.hosts().iter().map(|_| random.random_range(-1_500..=1_500)).collect();
        plan.faults = faults::draw(&plan, &mut random);
        plan.is_baseline = plan.faults.is_empty();
        if plan.is_baseline {
            plan.skews_ms.fill(0);
        }
        plan
    }

    /// Names of all hosts with services.
    pub fn hosts(&self) -> Vec<String> {
        let replicas = |name: &str, number: usize| (1..=number).map(|replica| format!("{name}-{replica}")).collect::<Vec<_>>();
        let mut hosts = vec!["gateway".to_owned()];
        hosts.extend(replicas("orders", self.orders_replicas));
        hosts.extend(replicas("products", self.products_replicas));
        hosts
    }

    /// Removes faults and clients by number.
    pub fn remove(&mut self, faults: &[usize], clients: &[usize]) {
        self.faults.retain(|fault| !faults.contains(&fault.number));
        self.clients.retain(|client| !clients.contains(&client.number));
    }

    /// Describes the mix in one line.
    pub fn summary(&self) -> String {
        let mut kinds: Vec<_> = self.faults.iter().map(|fault| fault.kind.name()).collect();
        kinds.sort_unstable();
        let counted = kinds.chunk_by(|one, other| one == other).map(|same| format!("{} × {}", same.len(), same[0]));
        let faults = counted.collect::<Vec<_>>().join(", ");
        format!(
            "{} clients, {} orders, {} products, {} stocks, latency ≤ {} ms, faults: {}",
            self.clients.len(),
            self.orders_replicas,
            self.products_replicas,
            self.stock.len(),
            self.latency_ms,
            if faults.is_empty() { "none" } else { &faults }
        )
    }
}

impl ClientPlan {
    fn draw(number: usize, random: &mut StdRng) -> Self {
        Self {
            number,
            seed: random.random(),
            think_ms: random.random_range(50..=600),
            hot_share: random.random_range(0.2..=0.9),
            duplicates: if random.random_bool(0.5) { random.random_range(0.0..=0.4) } else { 0.0 },
            timeout_ms: random.random_range(1_000..=12_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_follows_from_the_seed() {
        assert_eq!(Plan::new(7), Plan::new(7));
        assert_ne!(Plan::new(7), Plan::new(8));
    }

    #[test]
    fn plans_mix_faults_as_a_swarm() {
        let plans: Vec<_> = (0..1_000).map(Plan::new).collect();
        let kinds = |plan: &Plan| plan.faults.iter().map(|fault| fault.kind.name()).collect::<std::collections::BTreeSet<_>>().len();
        let share = |wanted: fn(usize) -> bool| plans.iter().filter(|plan| wanted(kinds(plan))).count();
        assert!((60..=140).contains(&share(|kinds| kinds == 0)), "about 10 % of the plans have no fault");
        let one = share(|kinds| kinds == 1);
        assert!((300..=500).contains(&one), "30 % have one kind of fault, as have mixes of a single one: {one}");
        for plan in &plans {
            assert!(plan.faults.iter().all(|fault| fault.from_ms >= BEGIN_MS && fault.until_ms <= plan.heal_ms), "{plan:?}");
        }
    }
}
