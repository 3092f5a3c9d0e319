//! Simulated clients: each is a user who orders, reads, revises, cancels and retries, and checks
//! every response against what it was told before.

pub mod http;
mod journal;

use std::{sync::Arc, time::Duration};

use ::http::Method;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use self::http::{Call, Reply, send};
pub use self::journal::{Creation, Journal};
use crate::{
    clock,
    plan::{BEGIN_MS, ClientPlan, Plan},
    services::SigningKeys,
    story::Story,
};

const SCOPES: &str = "products:read orders:read orders:write";
/// Wait between two attempts after the faults.
const RETRY: Duration = Duration::from_millis(300);
/// Attempts after the faults, before the client gives up.
const FINAL_ATTEMPTS: usize = 100;

/// A client.
#[derive(Clone)]
pub struct Client {
    /// Its behaviour.
    pub plan: ClientPlan,
    /// The run.
    pub run: Arc<Plan>,
    /// Its token, that of an administrator, and one without a scope for orders.
    pub tokens: (String, String, String),
    /// The products, the hot one first.
    pub products: Vec<Uuid>,
    /// Orders of all clients.
    pub journal: Journal,
    /// Record of the run.
    pub story: Story,
}

impl Client {
    /// Creates the client of `plan`.
    pub fn new(
        plan: ClientPlan,
        run: Arc<Plan>,
        keys: &SigningKeys,
        products: Vec<Uuid>,
        journal: Journal,
        story: Story,
    ) -> anyhow::Result<Self> {
        let token = keys.token(&user(plan.number), SCOPES)?;
        let reader = keys.token(&user(plan.number), "products:read")?;
        let admin = keys.token("admin", "orders:admin orders:read orders:write")?;
        Ok(Self { plan, run, tokens: (token, admin, reader), products, journal, story })
    }

    /// Sends requests until the faults end, then retries those with an unknown outcome and reads
    /// all orders.
    pub async fn run(self) -> turmoil::Result {
        let mut random = StdRng::seed_from_u64(self.plan.seed);
        sleep(Duration::from_millis(BEGIN_MS).saturating_sub(clock::elapsed())).await;
        let mut number = 0;
        while clock::elapsed() < Duration::from_millis(self.run.heal_ms) {
            self.act(number, &mut random).await;
            number += 1;
            sleep(Duration::from_millis(random.random_range(0..=self.plan.think_ms))).await;
        }
        self.finish().await;
        self.journal.finished();
        Ok(())
    }

    async fn act(&self, number: usize, random: &mut StdRng) {
        let known = self.journal.orders_of(self.plan.number);
        let order = (!known.is_empty()).then(|| known[random.random_range(0..known.len())]);
        match (random.random_range(0..100), order) {
            (0..44, _) | (_, None) => self.create(number, random).await,
            (44..52, Some(id)) => {
                self.read(id).await;
            }
            (52..60, Some(_)) => self.cancel_listed(random).await,
            (60..69, Some(id)) => self.set_status(id, "CANCELLED", &self.tokens.0, random).await,
            (69..77, Some(id)) => self.set_status(id, "COMPLETED", &self.tokens.1, random).await,
            (77..87, Some(id)) => self.revise(id, random).await,
            (87..91, Some(_)) => self.repeat_creation(random).await,
            (91..94, Some(_)) => self.reuse_key(random).await,
            (_, Some(_)) => self.trespass(random).await,
        }
    }

    async fn create(&self, number: usize, random: &mut StdRng) {
        let items = self.draw_items(random);
        // The keys of all users are the same: each user has a space of its own.
        let key = format!("key-{number}");
        let creation = self.journal.begin_creation(self.plan.number, &key, json!({ "items": items }));
        if random.random_bool(self.plan.duplicates) {
            let copy = self.clone();
            let creation = creation.clone();
            drop(palisade_middleware::task::spawn(async move { copy.attempt_creation(&creation).await }));
        }
        for _ in 0..random.random_range(1..=3) {
            if self.attempt_creation(&creation).await {
                if let Some(id) = self.journal.order_of(&creation).filter(|_| random.random_bool(0.3)) {
                    self.read(id).await;
                }
                return;
            }
            sleep(Duration::from_millis(random.random_range(50..=1_000))).await;
        }
    }

    fn draw_items(&self, random: &mut StdRng) -> Vec<Value> {
        let mut products = vec![if random.random_bool(self.plan.hot_share) { 0 } else { random.random_range(0..self.products.len()) }];
        if random.random_bool(0.3) {
            products.push(random.random_range(0..self.products.len()));
        }
        products.into_iter().map(|product| json!({ "productId": self.products[product], "quantity": random.random_range(1..=3) })).collect()
    }

    /// Sends a create request once. Returns whether its outcome is definite.
    async fn attempt_creation(&self, creation: &Creation) -> bool {
        let call = self.call(Method::POST, "/orders".to_owned(), &self.tokens.0, Some(creation.body.clone()), Some(creation.key.clone()));
        let Some(reply) = self.exchange(call).await else { return false };
        match reply.status {
            201 | 202 | 409 | 422 => {
                let id = if reply.status < 300 { reply.id("id") } else { reply.id("orderId") };
                match id {
                    Some(id) => self.journal.created(&self.story, creation, id, &reply),
                    None if reply.code() == "request_in_progress" => {}
                    None => self.story.violate("one order per key", format!("{}: {reply:?}", creation.key)),
                }
            }
            _ => self.expect(&reply, &[]),
        }
        if let (201 | 202, Some(id)) = (reply.status, reply.id("id")) {
            self.journal.observe(&self.story, self.plan.number, id, &reply);
        }
        reply.is_definite()
    }

    async fn read(&self, id: Uuid) -> bool {
        let seen = self.journal.version(id);
        let Some(reply) = self.exchange(self.call(Method::GET, format!("/orders/{id}"), &self.tokens.0, None, None)).await else {
            return false;
        };
        if reply.status == 200 && reply.version.is_some_and(|version| version < seen) {
            self.story.violate("reads never go backward", format!("{id}: version {seen}, then {reply:?}"));
        }
        match reply.status {
            200 => self.journal.observe(&self.story, self.plan.number, id, &reply),
            404 => self.story.violate("no acknowledged order is lost", format!("{id} is not found")),
            _ => self.expect(&reply, &[]),
        }
        reply.is_definite()
    }

    /// Lists the client's orders, and cancels one that is still in progress.
    async fn cancel_listed(&self, random: &mut StdRng) {
        let Some(reply) = self.exchange(self.call(Method::GET, "/orders?limit=100".to_owned(), &self.tokens.0, None, None)).await else {
            return;
        };
        self.expect(&reply, &[200]);
        let items = reply.body["items"].as_array().cloned().unwrap_or_default();
        let mut pending = Vec::new();
        for item in items {
            let Some(id) = item["id"].as_str().and_then(|id| id.parse().ok()) else { continue };
            if item["userId"].as_str() != Some(user(self.plan.number).as_str()) {
                self.story.violate("no access to the orders of others", format!("the list of {} has {item}", user(self.plan.number)));
                continue;
            }
            self.journal.listed(self.plan.number, id);
            if item["status"] == "PENDING" {
                pending.push(id);
            }
        }
        if !pending.is_empty() {
            let id = pending[random.random_range(0..pending.len())];
            self.set_status(id, "CANCELLED", &self.tokens.0, random).await;
        }
    }

    async fn set_status(&self, id: Uuid, status: &str, token: &str, random: &mut StdRng) {
        for _ in 0..random.random_range(1..=2) {
            let call = self.call(Method::PUT, format!("/orders/{id}/status"), token, Some(json!({ "status": status })), None);
            let Some(reply) = self.exchange(call).await else { continue };
            self.expect(&reply, &[200, 409]);
            if reply.status == 200 {
                self.journal.observe(&self.story, self.plan.number, id, &reply);
                self.journal.acknowledged(id, status);
            }
            if reply.is_definite() {
                return;
            }
        }
    }

    async fn revise(&self, id: Uuid, random: &mut StdRng) {
        let body = json!({ "items": self.draw_items(random) });
        let Some(reply) = self.exchange(self.call(Method::PUT, format!("/orders/{id}"), &self.tokens.0, Some(body), None)).await else {
            return;
        };
        self.expect(&reply, &[200, 202, 409, 422]);
        if matches!(reply.status, 200 | 202) {
            self.journal.observe(&self.story, self.plan.number, id, &reply);
        }
    }

    /// Sends a create request again whose outcome is known.
    async fn repeat_creation(&self, random: &mut StdRng) {
        let ended = self.journal.definite_creations(self.plan.number);
        if let Some(creation) = ended.get(random.random_range(0..ended.len().max(1))) {
            self.attempt_creation(creation).await;
        }
    }

    /// Sends another body with a key that was used.
    async fn reuse_key(&self, random: &mut StdRng) {
        let ended = self.journal.definite_creations(self.plan.number);
        let Some(Creation { key, .. }) = ended.get(random.random_range(0..ended.len().max(1))) else { return };
        let body = json!({ "items": [{ "productId": self.products[0], "quantity": 999_999 }] });
        let call = self.call(Method::POST, "/orders".to_owned(), &self.tokens.0, Some(body), Some(key.clone()));
        let Some(reply) = self.exchange(call).await else { return };
        if reply.is_definite() && reply.code() != "idempotency_key_reused" {
            self.story.violate("a key has one request", format!("{key}: {reply:?}"));
        }
        self.expect(&reply, &[422]);
    }

    /// Tries what must never succeed: another user's order, a wrong token, a missing scope.
    async fn trespass(&self, random: &mut StdRng) {
        let foreign = self.journal.orders_of_others(self.plan.number);
        let (token, allowed) = match random.random_range(0..4) {
            0 => ("eyJhbGciOiJFZERTQSJ9.e30.AAAA", [401]),
            1 => (self.tokens.2.as_str(), [403]),
            _ => (self.tokens.0.as_str(), [404]),
        };
        let Some(id) = foreign.get(random.random_range(0..foreign.len().max(1))) else { return };
        let call = match random.random_range(0..3) {
            0 => self.call(Method::GET, format!("/orders/{id}"), token, None, None),
            1 => self.call(Method::PUT, format!("/orders/{id}/status"), token, Some(json!({ "status": "CANCELLED" })), None),
            _ => self.call(Method::DELETE, format!("/orders/{id}"), token, None, None),
        };
        let Some(reply) = self.exchange(call).await else { return };
        if reply.is_definite() && !allowed.contains(&reply.status) {
            self.story.violate("no access to the orders of others", format!("{id}: {reply:?}"));
        }
        self.expect(&reply, &allowed);
    }

    /// Brings everything to an end after the faults.
    async fn finish(&self) {
        for creation in self.journal.open_creations(self.plan.number) {
            self.until_definite(&creation.key, || self.attempt_creation(&creation)).await;
        }
        for id in self.journal.orders_of(self.plan.number) {
            self.until_definite("read", || self.read(id)).await;
        }
    }

    async fn until_definite<F: Future<Output = bool>>(&self, what: &str, attempt: impl Fn() -> F) {
        for _ in 0..FINAL_ATTEMPTS {
            if attempt().await {
                return;
            }
            sleep(RETRY).await;
        }
        self.story.violate("requests succeed after the faults", format!("{}: {what}", user(self.plan.number)));
    }

    fn call(&self, method: Method, path: String, token: &str, body: Option<Value>, key: Option<String>) -> Call {
        Call { method, path, token: token.to_owned(), key, body, timeout: Duration::from_millis(self.plan.timeout_ms) }
    }

    async fn exchange(&self, call: Call) -> Option<Reply> {
        let request = format!("{} {}{}", call.method, call.path, call.key.as_ref().map(|key| format!(" ({key})")).unwrap_or_default());
        let name = user(self.plan.number);
        self.story.tell(&name, format!("→ {request}{}", call.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default()));
        match send(call).await {
            Ok(reply) => {
                let detail = [reply.body["status"].as_str().unwrap_or_default(), reply.code()].join(" ");
                self.story.tell(&name, format!("← {} {} for {request}", reply.status, detail.trim()));
                Some(reply)
            }
            Err(error) => {
                self.story.tell(&name, format!("← nothing for {request}: {error}"));
                if self.run.is_baseline {
                    self.story.violate("without faults every request is answered", request);
                }
                None
            }
        }
    }

    /// Checks that the status is documented: one of `allowed`, or a temporary refusal.
    fn expect(&self, reply: &Reply, allowed: &[u16]) {
        let is_temporary = matches!(reply.status, 429 | 503 | 504) || reply.code() == "request_in_progress";
        if !is_temporary && !allowed.contains(&reply.status) {
            self.story.violate("only documented responses", format!("{reply:?}"));
        }
        if self.run.is_baseline && reply.status >= 500 {
            self.story.violate("without faults every request succeeds", format!("{reply:?}"));
        }
    }
}

/// Name of the user of a client.
pub fn user(number: usize) -> String {
    format!("user-{number}")
}
