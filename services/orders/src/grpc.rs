//! `palisade.orders.v1`: what callers may ask of orders, and in whose name.

mod convert;
pub mod refusal;
mod watch;

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    auth::Principal,
    context,
    cursor::Cursor,
    method_table::{Access, Method},
    process::Process,
    rejection::{Rejection, reasons},
    trace,
};
use palisade_proto::orders::v1::{
    self as proto, CreateOrderRequest, FindAllRequest, FindAllResponse, FindOneRequest, RemoveRequest, UpdateStatusRequest,
    WatchOrderRequest, orders_service_server::OrdersService,
};
use time::OffsetDateTime;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tonic::{Request, Response, Status};

use crate::{
    config,
    driver::Driver,
    metrics,
    order::{Actor, NewOrder, Order, OrderId, Status as OrderStatus},
    store::{Create, Creation, IdempotencyKey, Removal, StatusSet, Store},
    watch::Watches,
};

const READ: Access = Access::AnyScope(&["orders:read", ADMIN]);
const WRITE: Access = Access::AnyScope(&["orders:write", ADMIN]);
/// Whoever has it acts on all orders.
const ADMIN: &str = "orders:admin";

/// Who may call what.
pub static METHODS: [Method; 6] = [
    Method::grpc("/palisade.orders.v1.OrdersService/CreateOrder", WRITE),
    Method::grpc("/palisade.orders.v1.OrdersService/FindAll", READ),
    Method::grpc("/palisade.orders.v1.OrdersService/FindOne", READ),
    Method::grpc("/palisade.orders.v1.OrdersService/WatchOrder", READ).streaming(),
    Method::grpc("/palisade.orders.v1.OrdersService/UpdateStatus", WRITE),
    Method::grpc("/palisade.orders.v1.OrdersService/Remove", WRITE),
];

/// Time kept back from the caller's deadline for the answer itself.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);
/// When a caller should ask again whose first request is still at work.
const IN_PROGRESS_RETRY: Duration = Duration::from_secs(1);

/// The service behind the contract.
pub struct Orders {
    /// Where orders are kept.
    pub store: Arc<dyn Store>,
    /// Who waits for news of them.
    pub watches: Watches,
    /// What takes them to their end.
    pub driver: Driver,
    /// What it is a part of.
    pub process: Process,
    /// Seals page positions.
    pub cursor: Cursor,
    /// Times of the saga.
    pub config: config::Saga,
}

#[tonic::async_trait]
impl OrdersService for Orders {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let principal = context::caller()?;
        let request = request.into_inner();
        let user_id = on_behalf_of(&principal, &request.user_id)?.to_owned();
        let items: Vec<(&str, i64)> = request.items.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect();
        let order = NewOrder::new(&user_id, &items).map_err(Rejection::invalid)?;
        let key = convert::idempotency_key(&principal, request.idempotency_key, &order)?;
        self.create(order, key).await
    }

    async fn find_all(&self, request: Request<FindAllRequest>) -> Result<Response<FindAllResponse>, Status> {
        let principal = context::caller()?;
        let request = request.into_inner();
        let user_id = on_behalf_of(&principal, &request.user_id)?;
        let list = convert::list(&self.cursor, user_id, &request)?;
        let page = self.store.list(list).await.map_err(refusal::of_store)?;
        Ok(Response::new(convert::page(&self.cursor, user_id, &request, &page)))
    }

    async fn find_one(&self, request: Request<FindOneRequest>) -> Result<Response<proto::Order>, Status> {
        let order = self.visible(&*context::caller()?, &request.into_inner().id).await?;
        Ok(Response::new(convert::order(&order)))
    }

    type WatchOrderStream = watch::Events;

    async fn watch_order(&self, request: Request<WatchOrderRequest>) -> Result<Response<watch::Events>, Status> {
        self.watch(&*context::caller()?, request.into_inner()).await
    }

    async fn update_status(&self, request: Request<UpdateStatusRequest>) -> Result<Response<proto::Order>, Status> {
        let principal = context::caller()?;
        let request = request.into_inner();
        let to = convert::status(request.status())
            .ok_or_else(|| Rejection::invalid(vec![convert::violation("status", "required", "must be a status of an order")]))?;
        let order = self.visible(&principal, &request.id).await?;
        let by = if principal.has_scope(ADMIN) { Actor::Admin } else { Actor::Owner };
        if to == OrderStatus::Completed && by != Actor::Admin && order.status != to {
            return Err(needs_admin("only orders:admin completes an order").into());
        }
        let changed = self.store.set_status(order.id, to, by, self.process.clock.now()).await.map_err(refusal::of_store)?;
        match changed {
            StatusSet::Changed { from, order } => {
                metrics::order_moved(from, order.status);
                Ok(Response::new(convert::order(&order)))
            }
            StatusSet::Same(order) => Ok(Response::new(convert::order(&order))),
            StatusSet::Illegal { order, allowed } => Err(refusal::illegal(order.status, to, allowed).into()),
            StatusSet::NotFound => Err(refusal::not_found().into()),
        }
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<()>, Status> {
        let order = self.visible(&*context::caller()?, &request.into_inner().id).await?;
        match self.store.remove(order.id, self.process.clock.now()).await.map_err(refusal::of_store)? {
            Removal::Removed => Ok(Response::new(())),
            Removal::NotFound => Err(refusal::not_found().into()),
            Removal::InProgress(status) => Err(refusal::in_progress(status).into()),
        }
    }
}

impl Orders {
    /// The order, if `principal` may know of it: another user's is as absent as one that never was.
    async fn visible(&self, principal: &Principal, id: &str) -> Result<Order, Rejection> {
        let id = convert::id(id)?;
        let order = self.store.find(id).await.map_err(refusal::of_store)?;
        order.filter(|order| order.user_id == principal.subject || principal.has_scope(ADMIN)).ok_or_else(refusal::not_found)
    }

    async fn create(&self, order: NewOrder, key: Option<IdempotencyKey>) -> Result<Response<proto::Order>, Status> {
        let now = self.process.clock.now();
        let retried = context::current().is_some_and(|context| context.previous_attempts > 0);
        let create = Create {
            id: OrderId::generate(now),
            order,
            lease: Duration::from_millis(self.config.lease_ms),
            deadline: now + Duration::from_millis(self.config.deadline_ms),
            trace_parent: trace::current_traceparent(),
            key: key.clone(),
            retried,
        };
        let (creation, finished) = self.begin(create, now).await?;
        if key.is_some() {
            trace::record("app.idempotency.outcome", metrics::key_outcome(&creation));
        }
        match creation {
            Creation::Created(claimed) => {
                let order = self.in_time(finished, claimed.saga.order, key.as_ref()).await;
                convert::answer(&order, false)
            }
            Creation::Existing(order) => {
                if retried {
                    self.take_from_the_dead(&order).await;
                }
                self.keep_answer(&order, key.as_ref()).await;
                convert::answer(&order, true)
            }
            Creation::Replayed { answer } => convert::answer(&convert::kept(&answer)?, true),
            Creation::KeyReused => Err(Rejection::new(&reasons::IDEMPOTENCY_KEY_REUSED, "the key was used with another body").into()),
            Creation::InProgress => {
                let rejection = Rejection::new(&reasons::REQUEST_IN_PROGRESS, "the first request with this key is still at work");
                Err(rejection.with_retry_after(IN_PROGRESS_RETRY).into())
            }
        }
    }

    /// Accepts the order and runs its saga in a task of its own; the latter tells how the order stood at last. Whoever stops waiting, for either of the two,
    /// stops nothing, and a process that is told to stop ends it first: its lease would keep everybody else from it.
    async fn begin(&self, create: Create, now: OffsetDateTime) -> Result<(Creation, oneshot::Receiver<Order>), Rejection> {
        let (created, creation) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let (store, driver) = (self.store.clone(), self.driver.clone());
        self.process.run(async move {
            let key = create.key.clone();
            let creation = store.create(create, now).await;
            if let (Some(_), Ok(creation)) = (&key, &creation) {
                metrics::asked_with_key(creation);
            }
            let claimed = if let Ok(Creation::Created(claimed)) = &creation { Some(claimed.clone()) } else { None };
            // Nobody may be waiting any more.
            let _ = created.send(creation);
            if let Some(claimed) = claimed {
                metrics::saga_started();
                let make_answer = move |order: &Order| (!order.is_unsettled()).then(|| convert::keep(order, key.clone())).flatten();
                let _ = finish.send(driver.run(claimed, &make_answer).await);
            }
        });
        let creation = creation.await.map_err(|_| Rejection::internal("the work on an order ended without a result"))?;
        Ok((creation.map_err(refusal::of_store)?, finished))
    }

    /// The order when its saga is through, or as it was accepted if that takes longer than the caller can wait.
    async fn in_time(&self, finished: oneshot::Receiver<Order>, accepted: Order, key: Option<&IdempotencyKey>) -> Order {
        let order = match timeout(self.patience(), finished).await {
            Ok(Ok(order)) => order,
            Ok(Err(_)) | Err(_) => accepted,
        };
        if order.is_unsettled() {
            self.keep_answer(&order, key).await;
        }
        order
    }

    /// Has a worker take the order up at once from the request that made it, which is most likely dead: its lease would say so much later. If it is
    /// only slow it loses the order, and some steps are done twice, which is why each may be. A worker that has the order by now keeps it.
    async fn take_from_the_dead(&self, order: &Order) {
        if let Err(error) = self.store.take_from_creator(order.id, self.process.clock.now()).await {
            tracing::warn!(order_id = %order.id, error = &error as &dyn std::error::Error, "a worker takes the order up when its lease is over");
        }
    }

    fn patience(&self) -> Duration {
        let most = Duration::from_millis(self.config.inline_wait_ms);
        let left = context::current().and_then(|context| context.deadline).map(|at| at.saturating_duration_since(Instant::now()));
        left.map_or(most, |left| most.min(left.saturating_sub(ANSWER_MARGIN)))
    }

    /// What is answered now is what every replay answers.
    async fn keep_answer(&self, order: &Order, key: Option<&IdempotencyKey>) {
        let Some(answer) = convert::keep(order, key.cloned()) else { return };
        if let Err(error) = self.store.store_answer(order.id, answer).await {
            // The next replay answers from the order as it stands then.
            tracing::warn!(order_id = %order.id, error = &error as &dyn std::error::Error, "the answer could not be kept for replays");
        }
    }
}

/// Whose orders the call is about: the caller's own, or another's for an admin.
fn on_behalf_of<'a>(principal: &'a Principal, user_id: &'a str) -> Result<&'a str, Rejection> {
    match user_id {
        "" => Ok(&principal.subject),
        own if own == principal.subject => Ok(own),
        other if principal.has_scope(ADMIN) => Ok(other),
        _ => Err(needs_admin("acting for another user needs the scope orders:admin")),
    }
}

fn needs_admin(detail: &'static str) -> Rejection {
    Rejection::new(&reasons::INSUFFICIENT_SCOPE, detail)
}

impl Order {
    /// Still on its way: answered with 202 over HTTP.
    fn is_unsettled(&self) -> bool {
        matches!(self.status, OrderStatus::Pending | OrderStatus::ProductReserved)
    }
}
