//! Clients of products: they call its replicas directly, as the orders service does, and record
//! every attempt.

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use palisade_proto::{
    products::v1::{self as proto, ReservationLine, ReservationState, products_service_client::ProductsServiceClient},
    reasons::{INSUFFICIENT_STOCK, reservation},
};
use palisade_tests::{Shop, eventually, jwt, linearizability::History, random::Random, shop_helpers::create_product};
use serde_json::json;
use tonic::{Request, Response, Status, transport::Channel};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::product::{Call, Product, Reply, State};

/// Clients that call about the same product at once.
const CLIENTS: usize = 3;
/// Reservations of a product that are called about most.
const RECENT: usize = 4;

/// Channels to the replicas of products, and the keys of their callers.
#[derive(Clone)]
pub(crate) struct Products {
    replicas: Vec<Channel>,
    orders: Caller,
    gateway: Caller,
}

/// Service that signs internal tokens.
#[derive(Clone)]
struct Caller {
    name: &'static str,
    scope: &'static str,
    key: EncodingKey,
    key_id: String,
}

/// Product under test.
pub(crate) struct Subject {
    id: String,
    history: History<Product>,
    /// Reservations with their quantities, newest last.
    reservations: Mutex<Vec<(Uuid, i64)>>,
}

impl Caller {
    fn read(directory: &Path, name: &'static str, scope: &'static str) -> Self {
        let read = |extension: &str| std::fs::read_to_string(directory.join(format!("{name}.{extension}"))).unwrap();
        let key_set: serde_json::Value = serde_json::from_str(&read("jwks")).unwrap();
        let key = EncodingKey::from_ed_pem(read("pem").as_bytes()).unwrap();
        Self { name, scope, key, key_id: key_set["keys"][0]["kid"].as_str().unwrap().to_owned() }
    }

    fn token(&self) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        (header.typ, header.kid) = (Some("int+jwt".to_owned()), Some(self.key_id.clone()));
        let now = jwt::now();
        let claims = json!({
            "iss": self.name, "sub": "recorder", "aud": "products", "iat": now, "exp": now + 60, "scope": self.scope, "act": { "sub": self.name },
        });
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

impl Products {
    pub(crate) fn new(shop: &Shop) -> Self {
        let channel = |replica: &palisade_tests::process::Program| Channel::from_shared(replica.url("products")).unwrap().connect_lazy();
        // The first encoding needs a provider.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Self {
            replicas: shop.replicas("products").iter().map(channel).collect(),
            orders: Caller::read(shop.directory(), "orders", "products:reserve"),
            gateway: Caller::read(shop.directory(), "gateway", "products:read products:write"),
        }
    }

    /// Sends `call` to a replica. `None`: the reply proves nothing.
    async fn send(&self, replica: usize, product: &str, call: &Call) -> Option<Reply> {
        let mut client = ProductsServiceClient::new(self.replicas[replica].clone());
        let caller = if matches!(call, Call::Adjust(..) | Call::Read) { &self.gateway } else { &self.orders };
        let token = caller.token();
        let sent = match call {
            Call::Reserve(id, quantity) => {
                let line = ReservationLine { product_id: product.to_owned(), quantity: *quantity, ..ReservationLine::default() };
                let request = proto::ReserveStockRequest { reservation_id: id.to_string(), lines: vec![line], ..Default::default() };
                reservation(client.reserve_stock(authorized(request, &token)).await)
            }
            Call::Confirm(id) => {
                let request = proto::ConfirmReservationRequest { reservation_id: id.to_string() };
                reservation(client.confirm_reservation(authorized(request, &token)).await)
            }
            Call::Release(id) => {
                let request = proto::ReleaseReservationRequest { reservation_id: id.to_string() };
                reservation(client.release_reservation(authorized(request, &token)).await)
            }
            Call::Fulfil(id) => {
                let request = proto::FulfilReservationRequest { reservation_id: id.to_string() };
                reservation(client.fulfil_reservation(authorized(request, &token)).await)
            }
            Call::Adjust(key, delta) => {
                let (product_id, idempotency_key) = (product.to_owned(), key.to_string());
                let request = proto::AdjustStockRequest {
                    product_id,
                    delta: *delta,
                    reason: "counted".to_owned(),
                    idempotency_key,
                    preconditions: None,
                };
                client.adjust_stock(authorized(request, &token)).await.map(|entry| Reply::Units(entry.into_inner().quantity_after))
            }
            Call::Read => {
                let request = proto::FindOneRequest { id: product.to_owned() };
                client.find_one(authorized(request, &token)).await.map(|product| Reply::Units(product.into_inner().quantity))
            }
        };
        sent.or_else(|status| rejection(&status).ok_or(status)).inspect_err(|status| eprintln!("{call:?}: {status}")).ok()
    }
}

fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn reservation(response: Result<Response<proto::Reservation>, Status>) -> Result<Reply, Status> {
    let reservation = response?.into_inner();
    Ok(Reply::Is(match reservation.state() {
        ReservationState::Held => State::Held,
        ReservationState::Confirmed => State::Confirmed,
        ReservationState::Fulfilled => State::Fulfilled,
        ReservationState::Released => State::Released,
        ReservationState::Refused => State::Refused,
        state => panic!("no hold is as old as to be {state:?}"),
    }))
}

/// Returns the reply of an error that proves the state.
fn rejection(status: &Status) -> Option<Reply> {
    let reason = status.get_details_error_info()?.reason.to_lowercase();
    let all = [
        (&INSUFFICIENT_STOCK, Reply::InsufficientStock),
        (&reservation::RELEASED, Reply::Rejected(Some(State::Released))),
        (&reservation::REFUSED, Reply::Rejected(Some(State::Refused))),
        (&reservation::NOT_CONFIRMED, Reply::NotConfirmed),
        (&reservation::UNKNOWN, Reply::Rejected(None)),
    ];
    all.into_iter().find_map(|(known, reply)| (known.slug == reason).then_some(reply))
}

impl Subject {
    pub(crate) async fn create(shop: &Shop) -> Self {
        let seller = shop.client("seller", palisade_tests::shop::ALL_SCOPES);
        let id = create_product(&seller, crate::product::UNITS).await;
        Self { id, history: History::default(), reservations: Mutex::default() }
    }

    pub(crate) fn history(&self) -> &History<Product> {
        &self.history
    }

    /// Calls until it is stopped, and reads the stock at the end.
    pub(crate) async fn run(&self, products: &Products, stopped: &AtomicBool, random: &mut Random) {
        let clients = (0..CLIENTS).map(|_| random.fork()).map(|mut random| async move {
            while !stopped.load(Ordering::Relaxed) {
                let call = self.choose(&mut random);
                self.call(products, call, &mut random).await;
            }
        });
        futures_util::future::join_all(clients.collect::<Vec<_>>()).await;
        self.call(products, Call::Read, random).await;
    }

    /// Sends a call to any replica until one replies. Every attempt is an operation.
    async fn call(&self, products: &Products, call: Call, random: &mut Random) {
        eventually(async || {
            let replica = random.choose_index(0..products.replicas.len() as u64);
            let pending = self.history.call(call.clone());
            let reply = products.send(usize::try_from(replica).unwrap(), &self.id, &call).await?;
            pending.reply(reply);
            Some(())
        })
        .await;
    }

    fn choose(&self, random: &mut Random) -> Call {
        let mut known = self.reservations.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = known.len().saturating_sub(RECENT);
        // One of ten ids is new, so that a release may come first.
        if known.is_empty() || random.choose_index(0..10) == 0 {
            let new = (Uuid::new_v4(), i64::try_from(random.choose_index(1..6)).unwrap());
            known.push(new);
        }
        let (id, quantity) = *random.choose(&known[recent..]);
        match random.choose_index(0..14) {
            0..4 => Call::Reserve(id, quantity),
            4..6 => Call::Confirm(id),
            6..8 => Call::Release(id),
            8 => Call::Fulfil(id),
            9..11 => Call::Adjust(Uuid::new_v4(), *random.choose(&[-3, -2, -1, 1, 2, 3])),
            _ => Call::Read,
        }
    }
}
