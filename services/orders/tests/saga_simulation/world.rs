//! Simulated world: orders, workers that run their sagas, and faults between them and products.

use std::time::Duration;

use palisade_middleware::preconditions::VersionPreconditions;
use palisade_orders::{
    order::{FailureReason, Line, MaxTotal, NewOrder, Order, Role, Status},
    saga::{
        ConfirmOutcome, Effect, Event, ReleaseOutcome, ReserveOutcome, ReviseOutcome, RevisionEnd, RevisionRequest, Saga, StatusChange,
        Transition, request_conditional_change, request_revision,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Bug,
    products::{Hold, Products},
};

const LEASE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_mins(10);

#[derive(Debug, Clone, Copy)]
enum Call {
    Reserve,
    Confirm,
    Release,
    Revise,
}

/// Stored order.
struct Row {
    saga: Saga,
    fence: i64,
    due_at: Option<OffsetDateTime>,
}

/// Worker with its copy of a claimed order and its next effect.
struct Worker {
    row: usize,
    saga: Saga,
    fence: i64,
    effect: Effect,
}

/// End of a run.
pub(crate) struct Ended {
    /// Final status of each order.
    pub(crate) statuses: Vec<(Status, Option<FailureReason>)>,
    /// Whether each revision was made.
    pub(crate) revisions: Vec<bool>,
}

pub(crate) struct World {
    random: Random,
    now: OffsetDateTime,
    rows: Vec<Row>,
    products: Products,
    workers: [Option<Worker>; 3],
    /// Requests in flight, delivered later.
    delayed: Vec<(Call, Order)>,
    revisions: Vec<bool>,
    faulty: bool,
    bug: Bug,
}

impl World {
    fn new(seed: u64, bug: Bug) -> Self {
        Self {
            random: Random::seeded(seed),
            now: OffsetDateTime::UNIX_EPOCH,
            rows: Vec::new(),
            products: Products::new(bug),
            workers: [const { None }; 3],
            delayed: Vec::new(),
            revisions: Vec::new(),
            faulty: true,
            bug,
        }
    }

    /// I6: once the faults stop, every order finishes.
    pub(crate) fn run(seed: u64, bug: Bug) -> Result<Ended, String> {
        let mut world = Self::new(seed, bug);
        for _ in 0..300 {
            world.tick();
            world.check()?;
        }
        // Faults and status changes stop, and delayed requests arrive.
        world.faulty = false;
        for _ in 0..3_000 {
            world.tick();
            world.check()?;
            if world.delayed.is_empty() && world.rows.iter().all(|row| row.saga.is_finished()) {
                let statuses = world.rows.iter().map(|row| (row.saga.order.status, row.saga.order.failure_reason)).collect();
                return Ok(Ended { statuses, revisions: world.revisions });
            }
        }
        Err("an order did not finish".into())
    }

    fn tick(&mut self) {
        match self.random.below(if self.faulty { 13 } else { 9 }) {
            0 => {
                let max_ms = if self.random.percent(5) { 1_200_000 } else { 8_000 };
                self.now += Duration::from_millis(self.random.below(max_ms));
                self.products.expire(self.now);
            }
            1 if !self.delayed.is_empty() => {
                let index = usize::try_from(self.random.below(self.delayed.len() as u64)).unwrap();
                let (call, order) = self.delayed.swap_remove(index);
                self.deliver(call, &order);
            }
            9 => self.create_order(),
            10 => self.change_status(),
            12 => self.request_revision(),
            11 => {
                let worker = usize::try_from(self.random.below(3)).unwrap();
                if self.random.percent(30) {
                    // crash: the worker's state is lost, its lease remains
                    self.workers[worker] = None;
                }
            }
            _ => self.work(),
        }
    }

    fn create_order(&mut self) {
        if self.rows.len() >= 12 {
            return;
        }
        let n = self.rows.len() as u128 + 1;
        let ids: Vec<String> = (1..=3).filter(|_| self.random.percent(60)).map(|n| Uuid::from_u128(n).to_string()).collect();
        let quantity = 1 + i64::try_from(self.random.below(4)).unwrap();
        let items: Vec<(&str, i64)> = ids.iter().map(|id| (id.as_str(), quantity)).collect();
        let Ok(new) = NewOrder::new("alice", &items) else { return };
        let order = Order::accepted(Uuid::from_u128(n).into(), new, self.now);
        // Some orders are above their maximum: a product costs 100.
        let max_total = self.random.percent(30).then(|| MaxTotal::new(i64::try_from(self.random.below(1_200)).unwrap()).unwrap());
        let saga = Saga { order, release_pending: false, deadline: self.now + DEADLINE, attempts: 0, max_total };
        self.rows.push(Row { saga, fence: 0, due_at: Some(self.now) });
    }

    /// A user cancels an order, or an admin completes one.
    fn change_status(&mut self) {
        let (now, random) = (self.now, &mut self.random);
        let Some(row) = (!self.rows.is_empty()).then(|| random.below(self.rows.len() as u64)) else { return };
        let row = &mut self.rows[usize::try_from(row).unwrap()];
        let (to, by) = if random.percent(50) { (Status::Cancelled, Role::Owner) } else { (Status::Completed, Role::Admin) };
        let change = request_conditional_change(&row.saga.order, to, by, &VersionPreconditions::default());
        if let StatusChange::Allowed(transition) = change {
            row.saga = row.saga.clone().after(&transition, now);
            row.due_at = row.saga.release_pending.then_some(now);
            row.fence += 1;
        }
    }

    fn request_revision(&mut self) {
        let (now, random) = (self.now, &mut self.random);
        let Some(row) = (!self.rows.is_empty()).then(|| random.below(self.rows.len() as u64)) else { return };
        let row = &mut self.rows[usize::try_from(row).unwrap()];
        let mut lines = Vec::new();
        for n in 1..=3 {
            let quantity = i64::try_from(random.below(6)).unwrap();
            if quantity > 0 {
                lines.push(Line { product_id: Uuid::from_u128(n), quantity, snapshot: None });
            }
        }
        if lines.is_empty() {
            return;
        }
        if let RevisionRequest::Allowed(order) = request_revision(&row.saga.order, (lines, None), &VersionPreconditions::default(), now) {
            row.saga = Saga { order: *order, attempts: 1, ..row.saga.clone() };
            row.due_at = Some(now);
            row.fence += 1;
        }
    }

    fn work(&mut self) {
        let index = usize::try_from(self.random.below(3)).unwrap();
        self.workers[index] = match self.workers[index].take() {
            Some(worker) => self.step(worker),
            None => self.claim(),
        };
    }

    fn claim(&mut self) -> Option<Worker> {
        let due: Vec<usize> = (0..self.rows.len()).filter(|row| self.rows[*row].due_at.is_some_and(|due_at| due_at <= self.now)).collect();
        let row = *due.get(usize::try_from(self.random.below(due.len().max(1) as u64)).unwrap())?;
        let claimed = &mut self.rows[row];
        claimed.due_at = Some(self.now + LEASE);
        claimed.fence += 1;
        claimed.saga.attempts += 1;
        let effect = claimed.saga.handle(Event::Resumed, self.now, 0);
        Some(Worker { row, saga: claimed.saga.clone(), fence: claimed.fence, effect })
    }

    fn step(&mut self, mut worker: Worker) -> Option<Worker> {
        let random = u32::try_from(self.random.below(1 << 32)).unwrap();
        let event = match worker.effect.clone() {
            Effect::CallReserve => self.call(Call::Reserve, &worker.saga.order),
            Effect::CallConfirm => self.call(Call::Confirm, &worker.saga.order),
            Effect::CallRelease => self.call(Call::Release, &worker.saga.order),
            Effect::Record(transitions) => {
                for transition in &transitions {
                    worker.saga = self.record(&worker, transition)?;
                }
                Event::Resumed
            }
            Effect::CallRevise => self.call(Call::Revise, &worker.saga.order),
            Effect::EndRevision(end) => {
                let now = self.now;
                if let Some(row) = self.owned_row(&worker) {
                    row.saga.order = end.apply(worker.saga.order.clone(), now);
                    row.due_at = None;
                    self.revisions.push(matches!(end, RevisionEnd::Revised(_)));
                }
                return None;
            }
            Effect::RecordReleased => {
                if let Some(row) = self.owned_row(&worker) {
                    row.saga.release_pending = false;
                    row.due_at = None;
                }
                return None;
            }
            Effect::RetryAt(at) => {
                if let Some(row) = self.owned_row(&worker) {
                    row.due_at = Some(at);
                }
                return None;
            }
            Effect::Finished => return None,
        };
        worker.effect = match worker.saga.handle(event, self.now, random) {
            Effect::RetryAt(_) if self.bug == Bug::TimeoutIsFailure && worker.saga.order.status == Status::Pending => {
                Effect::Record(vec![Transition {
                    from: Status::Pending,
                    to: Status::Failed,
                    reason: Some(FailureReason::ProductsUnavailable),
                    priced: None,
                    release: false,
                }])
            }
            Effect::RetryAt(_) if self.bug == Bug::TimeoutIsRefusal && worker.saga.order.revision.is_some() => {
                Effect::EndRevision(RevisionEnd::Refused(FailureReason::ProductsUnavailable))
            }
            effect => effect,
        };
        Some(worker)
    }

    fn owned_row(&mut self, worker: &Worker) -> Option<&mut Row> {
        let bug = self.bug;
        Some(&mut self.rows[worker.row]).filter(|row| row.fence == worker.fence || bug == Bug::NoFence)
    }

    fn record(&mut self, worker: &Worker, transition: &Transition) -> Option<Saga> {
        let now = self.now;
        let row = self.owned_row(worker)?;
        row.saga = worker.saga.clone().after(transition, now);
        if row.saga.is_finished() {
            row.due_at = None;
        }
        Some(row.saga.clone())
    }

    fn call(&mut self, call: Call, order: &Order) -> Event {
        if !self.faulty {
            return self.deliver(call, order);
        }
        match self.random.below(10) {
            0 => {} // request lost
            1 => self.delayed.push((call, order.clone())),
            2 => drop(self.deliver(call, order)), // response lost
            3 => {
                self.delayed.push((call, order.clone())); // delivered twice
                return self.deliver(call, order);
            }
            _ => return self.deliver(call, order),
        }
        let retry_after = self.random.percent(20).then_some(Duration::from_secs(3));
        match call {
            Call::Reserve => Event::ReserveReturned(ReserveOutcome::Unknown { retry_after }),
            Call::Confirm => Event::ConfirmReturned(ConfirmOutcome::Unknown { retry_after }),
            Call::Release => Event::ReleaseReturned(ReleaseOutcome::Unknown { retry_after }),
            Call::Revise => Event::ReviseReturned(ReviseOutcome::Unknown { retry_after }),
        }
    }

    fn deliver(&mut self, call: Call, order: &Order) -> Event {
        match call {
            Call::Reserve => Event::ReserveReturned(self.products.reserve(order, self.now)),
            Call::Confirm => Event::ConfirmReturned(self.products.confirm(order, self.now)),
            Call::Release => Event::ReleaseReturned(self.products.release(order)),
            Call::Revise => Event::ReviseReturned(self.products.revise(order)),
        }
    }

    /// I7, I9 and I10, at any time: for a finished order, products has exactly the units of the
    /// order, whatever requests still arrive.
    fn check(&self) -> Result<(), String> {
        self.products.check()?;
        for row in self.rows.iter().filter(|row| row.saga.is_finished()) {
            let Order { id, status, lines, .. } = &row.saga.order;
            let reserved = self.products.holds.get(id).filter(|(hold, _)| matches!(hold, Hold::Held { .. } | Hold::Confirmed));
            match (status, reserved) {
                (Status::Confirmed | Status::Completed, Some((Hold::Confirmed, reserved))) if quantities(reserved) == quantities(lines) => {
                }
                (Status::Failed | Status::Cancelled, None) if row.due_at.is_none() => {}
                _ => return Err(format!("order {id} is {status}, but its reservation is {reserved:?}")),
            }
        }
        Ok(())
    }
}

fn quantities(lines: &[Line]) -> Vec<(Uuid, i64)> {
    lines.iter().map(|line| (line.product_id, line.quantity)).collect()
}

/// `SplitMix64` generator. The seed determines the run.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}
