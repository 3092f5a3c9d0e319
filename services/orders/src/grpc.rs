//! gRPC service `palisade.orders.v1`: authorization, idempotent creation, queries, status changes
//! and watch streams.

mod caller;
mod convert;
mod list;
mod rejections;
mod revision;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use palisade_middleware::{
    auth::Principal,
    clock::{self, Clock},
    context,
    cursor::Cursor,
    jobs::JobHealth,
    method_table::{Access, Method},
    planted,
    process::Process,
    rejection::{Rejection, reasons},
    trace,
};
use palisade_proto::orders::v1::{
    self as proto, CreateOrderRequest, FindAllRequest, FindAllResponse, FindHistoryRequest, FindHistoryResponse, FindOneRequest,
    OrderEvent, RemoveRequest, ReviseOrderRequest, ReviseOrderResponse, UpdateStatusRequest, WatchOrderRequest,
    orders_service_server::OrdersService,
};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use self::{caller::ADMIN, list::Filters};
use crate::{
    config, metrics,
    order::{Actor, MaxTotal, NewOrder, Order, OrderId, Role, Status as OrderStatus},
    saga_executor::SagaExecutor,
    store::{Create, CreateResult, IdempotencyKey, OrderStore, RemoveResult, SetStatusResult},
    watch::{OrderStatusStream, OrderWatchers, Start},
};

const READ: Access = Access::AnyScope(&["orders:read", ADMIN]);
const WRITE: Access = Access::AnyScope(&["orders:write", ADMIN]);

// Costs in tokens of the caller's rate limit, the same as over HTTP. A read costs one.
const LIST_COST: u32 = 4;
const WRITE_COST: u32 = 2;
const ORDER_COST: u32 = 4;

/// Methods with their required scopes and costs.
pub static METHODS: [Method; 8] = [
    Method::grpc("/palisade.orders.v1.OrdersService/CreateOrder", WRITE).cost(ORDER_COST),
    Method::grpc("/palisade.orders.v1.OrdersService/FindAll", READ).cost(LIST_COST),
    Method::grpc("/palisade.orders.v1.OrdersService/FindOne", READ),
    Method::grpc("/palisade.orders.v1.OrdersService/FindHistory", READ).cost(LIST_COST),
    Method::grpc("/palisade.orders.v1.OrdersService/WatchOrder", READ).streaming(),
    Method::grpc("/palisade.orders.v1.OrdersService/ReviseOrder", WRITE).cost(ORDER_COST),
    Method::grpc("/palisade.orders.v1.OrdersService/UpdateStatus", WRITE).cost(WRITE_COST),
    Method::grpc("/palisade.orders.v1.OrdersService/Remove", WRITE).cost(WRITE_COST),
];

/// Time reserved for the response before the caller's deadline.
const RESPONSE_MARGIN: Duration = Duration::from_millis(100);
/// `Retry-After` for a request whose key belongs to a request in progress.
const IN_PROGRESS_RETRY: Duration = Duration::from_secs(1);

/// Response metadata of `WatchOrder`: the caller has already received the terminal state.
const ENDED: &str = "order-ended";

type Events = Pin<Box<dyn Stream<Item = Result<OrderEvent, Status>> + Send>>;

/// gRPC service implementation.
pub struct Orders {
    /// Order store.
    pub store: Arc<dyn OrderStore>,
    /// Watchers of orders.
    pub watchers: OrderWatchers,
    /// Notified of completed orders, which are to be fulfilled.
    pub completed: Arc<Notify>,
    /// Executor of the sagas.
    pub executor: SagaExecutor,
    /// Process that the service runs in.
    pub process: Process,
    /// Seals page cursors.
    pub cursor: Cursor,
    /// Timing of the saga.
    pub config: config::Saga,
    /// Health of the saga worker, without which no order is accepted.
    pub worker: JobHealth,
    /// Clock of the database.
    pub clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl OrdersService for Orders {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let principal = context::current_principal()?;
        let request = request.into_inner();
        let (user_id, mut violations) = match caller::effective_user_id(&principal, &request.user_id)? {
            Ok(user_id) => (user_id, Vec::new()),
            // Its items are checked too, so that all violations are reported at once.
            Err(violation) => (principal.subject.clone(), vec![violation]),
        };
        let max_total = request.max_total_minor.map(MaxTotal::new).transpose().unwrap_or_else(|violation| {
            violations.push(violation);
            None
        });
        let items: Vec<(&str, i64)> = request.items.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect();
        let order = match NewOrder::new(user_id, &items) {
            Ok(order) if violations.is_empty() => order.with_max_total(max_total),
            checked => {
                violations.extend(checked.err().unwrap_or_default());
                return Err(Rejection::invalid(violations).into());
            }
        };
        let key = convert::idempotency_key(&principal, request.idempotency_key, &order)?;
        let by = caller::creator(&principal, order.user_id());
        self.create(order, by, key).await
    }

    async fn find_all(&self, request: Request<FindAllRequest>) -> Result<Response<FindAllResponse>, Status> {
        let principal = context::current_principal()?;
        let request = request.into_inner();
        let filters = Filters::parse(&principal, &request)?;
        let list = filters.list(&self.cursor, &request, principal.has_scope(ADMIN))?;
        let page = self.store.list(list).await.map_err(rejections::from_store_error)?;
        Ok(Response::new(filters.page(&self.cursor, page)))
    }

    async fn find_one(&self, request: Request<FindOneRequest>) -> Result<Response<proto::Order>, Status> {
        let order = self.find_authorized(&*context::current_principal()?, &request.into_inner().id).await?;
        Ok(Response::new(convert::order(&order)))
    }

    async fn find_history(&self, request: Request<FindHistoryRequest>) -> Result<Response<FindHistoryResponse>, Status> {
        let order = self.find_authorized(&*context::current_principal()?, &request.into_inner().id).await?;
        let recorded = self.store.history(order.id).await.map_err(rejections::from_store_error)?;
        let items = order.complete_history(recorded).into_iter().map(convert::change);
        Ok(Response::new(FindHistoryResponse { items: items.collect() }))
    }

    type WatchOrderStream = Events;

    async fn watch_order(&self, request: Request<WatchOrderRequest>) -> Result<Response<Events>, Status> {
        self.watch(&*context::current_principal()?, request.into_inner()).await
    }

    async fn revise_order(&self, request: Request<ReviseOrderRequest>) -> Result<Response<ReviseOrderResponse>, Status> {
        Box::pin(self.revise(request.into_inner())).await
    }

    async fn update_status(&self, request: Request<UpdateStatusRequest>) -> Result<Response<proto::Order>, Status> {
        let principal = context::current_principal()?;
        let request = request.into_inner();
        let to = convert::status(request.status)?
            .ok_or_else(|| Rejection::invalid(vec![convert::violation("status", "required", "must be an order status")]))?;
        let preconditions = convert::preconditions(request.preconditions);
        let order = self.find_authorized(&principal, &request.id).await?;
        let by = caller::actor(&principal);
        if to == OrderStatus::Completed && by.role != Role::Admin && order.status != to {
            return Err(caller::insufficient_scope("completing an order requires the scope orders:admin").into());
        }
        let now = self.clock.now();
        let changed = self.store.set_status(order.id, to, by, preconditions, now).await.map_err(rejections::from_store_error)?;
        match changed {
            SetStatusResult::Changed { from, order } => {
                metrics::record_transition(from, order.status, &order, now);
                if order.status == OrderStatus::Completed {
                    self.completed.notify_one();
                }
                Ok(Response::new(convert::order(&order)))
            }
            SetStatusResult::Unchanged(order) => Ok(Response::new(convert::order(&order))),
            SetStatusResult::Illegal { order, allowed } => Err(rejections::illegal_transition(order.status, to, allowed).into()),
            SetStatusResult::VersionMismatch => Err(rejections::version_mismatch().into()),
            SetStatusResult::NotFound => Err(rejections::not_found().into()),
        }
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let principal = context::current_principal()?;
        let order = self.find_authorized(&principal, &request.id).await?;
        let (by, now) = (caller::actor(&principal), self.clock.now());
        let preconditions = convert::preconditions(request.preconditions);
        match self.store.remove(order.id, by, preconditions, now).await.map_err(rejections::from_store_error)? {
            RemoveResult::Removed => Ok(Response::new(())),
            RemoveResult::VersionMismatch => Err(rejections::version_mismatch().into()),
            RemoveResult::NotFound => Err(rejections::not_found().into()),
            RemoveResult::InProgress(status) => Err(rejections::order_in_progress(status).into()),
        }
    }
}

impl Orders {
    /// Returns the order if `principal` may see it. The order of another user is reported as not
    /// found, like a missing one.
    async fn find_authorized(&self, principal: &Principal, id: &str) -> Result<Order, Rejection> {
        let id = convert::id(id)?;
        let order = match self.store.find(id).await {
            Err(_) if planted!("failing store taken for a missing order") => None,
            found => found.map_err(rejections::from_store_error)?,
        };
        // Its owner has removed it: only administrators still see it.
        let is_visible = |order: &Order| {
            planted!("owner not checked") || principal.has_scope(ADMIN) || (order.user_id == principal.subject && order.removed.is_none())
        };
        order.filter(is_visible).ok_or_else(rejections::not_found)
    }

    /// Streams the current state of an order, then each change, up to a terminal status.
    async fn watch(&self, principal: &Principal, request: WatchOrderRequest) -> Result<Response<Events>, Status> {
        let start = match request.after_sequence {
            0 => Start::Now,
            1.. => Start::After(request.after_sequence),
            _ => return Err(Rejection::new(&reasons::INVALID_PARAMETER, "after_sequence must not be negative").into()),
        };
        // Authorize first, then start to watch before the order is read, so that no change is
        // missed in between.
        let id = self.find_authorized(principal, &request.id).await?.id;
        let watcher = self.watchers.watch(id);
        let order = self.find_authorized(principal, &request.id).await?;
        let stream = OrderStatusStream::new(self.store.clone(), watcher, order, start).await.map_err(rejections::from_store_error)?;
        let finished = stream.is_finished();
        let events = stream.into_stream().map(|order| Ok(OrderEvent { sequence: order.version, order: Some(convert::order(&order)) }));
        let mut response = Response::new(Box::pin(events) as Events);
        if finished {
            response.metadata_mut().insert(ENDED, MetadataValue::from_static("true"));
        }
        Ok(response)
    }

    async fn create(&self, order: NewOrder, by: Actor, key: Option<IdempotencyKey>) -> Result<Response<proto::Order>, Status> {
        if let Err(reason) = self.worker.check() {
            return Err(rejections::no_worker(&reason).into());
        }
        let now = self.clock.now();
        let is_retry = context::current().is_some_and(|context| context.previous_attempts > 0);
        let create = Create {
            id: OrderId::generate(now),
            order,
            by,
            lease: if planted!("lease that never ends") { Duration::from_hours(1) } else { Duration::from_millis(self.config.lease_ms) },
            deadline: clock::after(now, Duration::from_millis(self.config.deadline_ms)),
            trace_parent: trace::current_traceparent(),
            key: key.clone().filter(|_| {
                let forgotten = planted!("key forgotten") || is_retry && planted!("retry makes another order");
                !forgotten
            }),
            is_retry,
        };
        let (creation, finished) = self.accept_and_run(create, now).await?;
        if key.is_some() {
            trace::record("app.idempotency.outcome", metrics::key_outcome(&creation));
        }
        match creation {
            CreateResult::Created(claimed) => {
                let order = self.wait_for_saga(finished, claimed.saga.order, key.as_ref()).await;
                convert::create_response(&order, false)
            }
            CreateResult::Existing(order) => {
                if is_retry {
                    self.expire_creator_lease(&order).await;
                }
                self.store_response(&order, key.as_ref()).await;
                convert::create_response(&order, true)
            }
            CreateResult::Replayed { response } if planted!("replay of the present state") => {
                let stored = convert::decode_stored_response(&response)?;
                convert::create_response(&self.find_authorized(&*context::current_principal()?, &stored.id.to_string()).await?, true)
            }
            CreateResult::Replayed { response } => convert::create_response(&convert::decode_stored_response(&response)?, true),
            CreateResult::KeyReused => Err(Rejection::new(&reasons::IDEMPOTENCY_KEY_REUSED, "the key was used with another body").into()),
            CreateResult::InProgress => {
                let rejection = Rejection::new(&reasons::REQUEST_IN_PROGRESS, "the first request with this key is still in progress");
                Err(rejection.with_retry_after(IN_PROGRESS_RETRY).into())
            }
        }
    }

    /// Accepts the order and runs its saga in a task of its own. The receiver yields the order
    /// after the saga. Cancelling the request cancels neither of the two. A process that shuts down
    /// finishes the task first, because its lease would block all other workers.
    async fn accept_and_run(&self, create: Create, now: OffsetDateTime) -> Result<(CreateResult, oneshot::Receiver<Order>), Rejection> {
        let (creation_sender, creation) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let (store, executor) = (self.store.clone(), self.executor.clone());
        self.process.run(context::outlive_request(async move {
            let key = create.key.clone();
            let creation = store.create(create, now).await;
            if let (Some(_), Ok(creation)) = (&key, &creation) {
                metrics::record_idempotent_create(creation);
            }
            let claimed = if let Ok(CreateResult::Created(claimed)) = &creation { Some(claimed.clone()) } else { None };
            // Fails if the request was cancelled.
            let _ = creation_sender.send(creation);
            if let Some(claimed) = claimed {
                metrics::record_saga_started();
                let encode_response = move |order: &Order| {
                    (!order.status.is_in_progress()).then(|| convert::encode_stored_response(order, key.clone())).flatten()
                };
                let _ = finish.send(executor.run(claimed, &encode_response).await);
            }
        }));
        let creation = creation.await.map_err(|_| Rejection::internal("the saga task ended without a result"))?;
        Ok((creation.map_err(rejections::from_store_error)?, finished))
    }

    /// Waits for the saga and returns its order, or the accepted order when the inline wait ends
    /// first.
    async fn wait_for_saga(&self, finished: oneshot::Receiver<Order>, accepted: Order, key: Option<&IdempotencyKey>) -> Order {
        let order = match timeout(self.inline_wait(), finished).await {
            Ok(Ok(order)) => order,
            Ok(Err(_)) | Err(_) => accepted,
        };
        if order.status.is_in_progress() {
            self.store_response(&order, key).await;
        }
        order
    }

    /// Expires the lease of the request that created the order, so that a worker resumes the saga
    /// at once. That request has most likely died, and its lease would expire much later. If it is
    /// merely slow, it loses the order and some steps run twice, which is safe because every step
    /// is idempotent. The lease of a worker stays in force.
    async fn expire_creator_lease(&self, order: &Order) {
        if let Err(error) = self.store.expire_creator_lease(order.id, self.clock.now()).await {
            tracing::warn!(order_id = %order.id, error = &error as &dyn std::error::Error, "cannot expire the creator's lease, a worker resumes the order when it expires");
        }
    }

    fn inline_wait(&self) -> Duration {
        let max_wait = Duration::from_millis(self.config.inline_wait_ms);
        let remaining = context::current().and_then(|context| context.deadline).map(|limit| limit.remaining(Instant::now()));
        remaining.map_or(max_wait, |remaining| max_wait.min(remaining.saturating_sub(RESPONSE_MARGIN)))
    }

    /// Stores the response for all replays of the request.
    async fn store_response(&self, order: &Order, key: Option<&IdempotencyKey>) {
        let Some(response) = convert::encode_stored_response(order, key.cloned()) else { return };
        if let Err(error) = self.store.store_response(order.id, response).await {
            // The next replay builds its response from the order's state at that time.
            tracing::warn!(order_id = %order.id, error = &error as &dyn std::error::Error, "cannot store the response for replays");
        }
    }
}
