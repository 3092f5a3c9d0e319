//! In-memory products and orders services with fixed rules. They record the requests that they
//! receive.

use std::sync::{Arc, Mutex};

use palisade_middleware::{
    preconditions::{Condition, VersionPreconditions},
    rejection::{Rejection, Violation, reasons},
};
use palisade_proto::{
    orders::v1::{self as orders, Order, OrderItem, OrderStatus},
    preconditions::v1::{Preconditions, Versions},
    products::v1::{self as products, FindHistoryRequest, FindHistoryResponse, Product},
    reasons::ILLEGAL_TRANSITION,
};
use tonic::{Request, Response, Status};

use crate::fake_stock;

/// The only existing id, of a product and an order.
pub(crate) const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// Version of the product and of the order.
pub(crate) const VERSION: i64 = 3;
/// Idempotency key with a stored response.
pub(crate) const USED_KEY: &str = "used";

pub(crate) fn timestamp() -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: 1_767_225_600, nanos: 5_000_000 }
}

pub(crate) fn check_exists(id: &str) -> Result<(), Status> {
    if id == ID { Ok(()) } else { Err(Rejection::new(&reasons::NOT_FOUND, "not found").into()) }
}

pub(crate) fn respond<T>(value: T, key: &str) -> Response<T> {
    let mut response = Response::new(value);
    if key == USED_KEY {
        response.metadata_mut().insert("idempotency-replayed", "true".parse().unwrap());
    }
    response
}

/// Contains one product, [`ID`] in [`VERSION`].
#[derive(Clone, Default)]
pub(crate) struct FakeProducts {
    /// Last list request.
    pub(crate) list_request: Arc<Mutex<Option<products::FindAllRequest>>>,
    /// Inputs of all creates and updates.
    pub(crate) inputs: Arc<Mutex<Vec<products::ProductInput>>>,
    /// Last patch.
    pub(crate) patch: Arc<Mutex<Option<products::ProductPatch>>>,
    /// Error returned by every call, if set.
    pub(crate) error: Arc<Mutex<Option<Status>>>,
}

impl FakeProducts {
    fn save(&self, input: Option<products::ProductInput>, version: i64) -> Result<Product, Status> {
        let input = input.unwrap();
        self.inputs.lock().unwrap().push(input.clone());
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        let mut violations = Vec::new();
        if input.name.is_empty() {
            violations.push(Violation::new("name", "required", "must not be empty"));
        }
        if input.price_minor < 0 {
            violations.push(Violation::new("price", "out_of_range", "must not be negative"));
        }
        if input.quantity < 0 {
            violations.push(Violation::new("quantity", "out_of_range", "must not be negative"));
        }
        if violations.is_empty() { Ok(product(input, version)) } else { Err(Rejection::invalid(violations).into()) }
    }
}

fn product(input: products::ProductInput, version: i64) -> Product {
    Product {
        id: ID.to_owned(),
        name: input.name,
        description: input.description,
        price_minor: input.price_minor,
        quantity: input.quantity,
        category: input.category,
        is_active: input.is_active.unwrap_or_default(),
        version,
        created_at: Some(timestamp()),
        updated_at: Some(timestamp()),
    }
}

fn kettle() -> Product {
    let input = products::ProductInput { name: "Kettle".to_owned(), price_minor: 2490, quantity: 7, ..Default::default() };
    product(input, VERSION)
}

pub(crate) fn version_preconditions(conditions: Option<Preconditions>) -> VersionPreconditions {
    let condition = |versions: Versions| if versions.any { Condition::Any } else { Condition::Listed(versions.versions) };
    let Preconditions { if_match, if_none_match } = conditions.unwrap_or_default();
    VersionPreconditions { if_match: if_match.map(condition), if_none_match: if_none_match.map(condition) }
}

/// Evaluates the conditions of a write like the services.
fn check_version(conditions: Option<Preconditions>) -> Result<(), Status> {
    let allowed = version_preconditions(conditions).allow_write(&VERSION);
    if allowed { Ok(()) } else { Err(Rejection::new(&reasons::VERSION_MISMATCH, "another version").into()) }
}

#[tonic::async_trait]
impl products::products_service_server::ProductsService for FakeProducts {
    async fn create_product(&self, request: Request<products::CreateProductRequest>) -> Result<Response<Product>, Status> {
        let request = request.into_inner();
        Ok(respond(self.save(request.product, 1)?, &request.idempotency_key))
    }

    async fn find_all(&self, request: Request<products::FindAllRequest>) -> Result<Response<products::FindAllResponse>, Status> {
        let request = request.into_inner();
        *self.list_request.lock().unwrap() = Some(request.clone());
        if request.cursor == "forged" {
            return Err(Rejection::new(&reasons::INVALID_CURSOR, "the cursor belongs to another query").into());
        }
        if request.min_price_minor.is_some_and(|price| price < 0) {
            return Err(Rejection::invalid(vec![Violation::new("minPrice", "out_of_range", "must not be negative")]).into());
        }
        Ok(Response::new(products::FindAllResponse { items: vec![kettle()], next_cursor: "more".to_owned() }))
    }

    async fn find_one(&self, request: Request<products::FindOneRequest>) -> Result<Response<Product>, Status> {
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        check_exists(&request.into_inner().id)?;
        Ok(Response::new(kettle()))
    }

    async fn find_history(&self, request: Request<FindHistoryRequest>) -> Result<Response<FindHistoryResponse>, Status> {
        fake_stock::history(&request.into_inner())
    }

    async fn update(&self, request: Request<products::UpdateRequest>) -> Result<Response<Product>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        check_version(request.preconditions)?;
        Ok(Response::new(self.save(request.product, VERSION + 1)?))
    }

    async fn remove(&self, request: Request<products::RemoveRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        check_version(request.preconditions)?;
        Ok(Response::new(()))
    }

    async fn patch_product(&self, request: Request<products::PatchProductRequest>) -> Result<Response<Product>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        check_version(request.preconditions)?;
        let patch = request.patch.unwrap();
        *self.patch.lock().unwrap() = Some(patch.clone());
        Ok(Response::new(self.save(Some(fake_stock::patched(patch)?), VERSION + 1)?))
    }

    async fn adjust_stock(&self, request: Request<products::AdjustStockRequest>) -> Result<Response<products::StockAdjustment>, Status> {
        fake_stock::adjust(request.into_inner())
    }

    async fn list_stock_adjustments(
        &self,
        request: Request<products::ListStockAdjustmentsRequest>,
    ) -> Result<Response<products::ListStockAdjustmentsResponse>, Status> {
        fake_stock::list(&request.into_inner())
    }

    async fn reserve_stock(&self, _: Request<products::ReserveStockRequest>) -> Result<Response<products::Reservation>, Status> {
        Err(Status::unimplemented("not for the gateway"))
    }

    async fn confirm_reservation(
        &self,
        _: Request<products::ConfirmReservationRequest>,
    ) -> Result<Response<products::Reservation>, Status> {
        Err(Status::unimplemented("not for the gateway"))
    }

    async fn release_reservation(
        &self,
        _: Request<products::ReleaseReservationRequest>,
    ) -> Result<Response<products::Reservation>, Status> {
        Err(Status::unimplemented("not for the gateway"))
    }

    async fn revise_reservation(&self, _: Request<products::ReviseReservationRequest>) -> Result<Response<products::Reservation>, Status> {
        Err(Status::unimplemented("not for the gateway"))
    }

    async fn fulfil_reservation(&self, _: Request<products::FulfilReservationRequest>) -> Result<Response<products::Reservation>, Status> {
        Err(Status::unimplemented("not for the gateway"))
    }

    async fn list_reservations(
        &self,
        _: Request<products::ListReservationsRequest>,
    ) -> Result<Response<products::ListReservationsResponse>, Status> {
        Err(Status::unimplemented("not for the gateway"))
    }
}

/// Contains one order, [`ID`].
#[derive(Clone, Default)]
pub(crate) struct FakeOrders {
    /// Result of a valid new order; CONFIRMED by default.
    pub(crate) create_result: Arc<Mutex<Option<Result<OrderStatus, Status>>>>,
    /// Last create request.
    pub(crate) create_request: Arc<Mutex<Option<orders::CreateOrderRequest>>>,
    /// Last list request.
    pub(crate) list_request: Arc<Mutex<Option<orders::FindAllRequest>>>,
}

fn order(status: OrderStatus) -> Order {
    let is_reserved = status != OrderStatus::Pending;
    let item = OrderItem {
        product_id: ID.to_owned(),
        quantity: 2,
        name: is_reserved.then(|| "Kettle".to_owned()),
        unit_price_minor: is_reserved.then_some(2490),
        subtotal_minor: is_reserved.then_some(4980),
    };
    Order {
        id: ID.to_owned(),
        user_id: "alice".to_owned(),
        items: vec![item],
        total_minor: is_reserved.then_some(4980),
        status: status.into(),
        failure_reason: if status == OrderStatus::Failed { "insufficient_stock".to_owned() } else { String::new() },
        created_at: Some(timestamp()),
        updated_at: Some(timestamp()),
        version: VERSION,
        revision: None,
        removed_at: None,
        removed_by: String::new(),
    }
}

#[tonic::async_trait]
impl orders::orders_service_server::OrdersService for FakeOrders {
    async fn create_order(&self, request: Request<orders::CreateOrderRequest>) -> Result<Response<Order>, Status> {
        let request = request.into_inner();
        *self.create_request.lock().unwrap() = Some(request.clone());
        let items = request.items.iter().enumerate();
        let invalid = items.filter(|(_, item)| item.quantity < 1);
        let violation = |index| Violation::new(format!("items[{index}].quantity"), "out_of_range", "must be at least 1");
        let mut violations: Vec<_> = invalid.map(|(index, _)| violation(index)).collect();
        if request.items.is_empty() {
            violations.push(Violation::new("items", "required", "must have at least one item"));
        }
        if !violations.is_empty() {
            return Err(Rejection::invalid(violations).into());
        }
        let status = self.create_result.lock().unwrap().clone().unwrap_or(Ok(OrderStatus::Confirmed))?;
        Ok(respond(order(status), &request.idempotency_key))
    }

    async fn find_all(&self, request: Request<orders::FindAllRequest>) -> Result<Response<orders::FindAllResponse>, Status> {
        let request = request.into_inner();
        *self.list_request.lock().unwrap() = Some(request.clone());
        if request.user_id == "bob" {
            return Err(Rejection::new(&reasons::INSUFFICIENT_SCOPE, "the scope orders:admin is required").into());
        }
        Ok(Response::new(orders::FindAllResponse { items: vec![order(OrderStatus::Failed)], next_cursor: String::new() }))
    }

    async fn find_one(&self, request: Request<orders::FindOneRequest>) -> Result<Response<Order>, Status> {
        check_exists(&request.into_inner().id)?;
        Ok(Response::new(order(OrderStatus::Pending)))
    }

    /// Returns the creation by alice, her cancellation through an unknown service, and the removal
    /// by an earlier release.
    async fn find_history(&self, request: Request<orders::FindHistoryRequest>) -> Result<Response<orders::FindHistoryResponse>, Status> {
        check_exists(&request.into_inner().id)?;
        let change = |version, from: OrderStatus, to: OrderStatus, reason: &str, actor: [&str; 3]| {
            let ([role, subject, service], at) = (actor.map(str::to_owned), Some(timestamp()));
            let (from, to, reason) = (from.into(), to.into(), reason.to_owned());
            orders::OrderChange { version, from, to, reason, actor_role: role, actor_subject: subject, actor_service: service, at }
        };
        let items = vec![
            change(1, OrderStatus::Unspecified, OrderStatus::Pending, "", ["owner", "alice", "gateway"]),
            change(2, OrderStatus::Pending, OrderStatus::Cancelled, "", ["owner", "alice", ""]),
            change(2, OrderStatus::Cancelled, OrderStatus::Cancelled, "removed", ["", "", ""]),
        ];
        Ok(Response::new(orders::FindHistoryResponse { items }))
    }

    type WatchOrderStream = tokio_stream::Iter<std::vec::IntoIter<Result<orders::OrderEvent, Status>>>;

    /// Sends the statuses PENDING, `PRODUCT_RESERVED`, CONFIRMED and CANCELLED. The stream ends
    /// after each event.
    async fn watch_order(&self, request: Request<orders::WatchOrderRequest>) -> Result<Response<Self::WatchOrderStream>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        let statuses = [OrderStatus::Pending, OrderStatus::ProductReserved, OrderStatus::Confirmed, OrderStatus::Cancelled];
        let events = (1..).zip(statuses).filter(|(sequence, _)| *sequence > request.after_sequence);
        let mut events: Vec<_> =
            events.take(1).map(|(sequence, status)| Ok(orders::OrderEvent { sequence, order: Some(order(status)) })).collect();
        let is_finished = events.is_empty();
        events.push(Err(Rejection::new(&reasons::STREAM_ENDED, "reconnect").into()));
        let mut response = Response::new(tokio_stream::iter(events));
        if is_finished {
            response.metadata_mut().insert("order-ended", "true".parse().unwrap());
        }
        Ok(response)
    }

    /// A revision to 9 units stays pending.
    async fn revise_order(&self, request: Request<orders::ReviseOrderRequest>) -> Result<Response<orders::ReviseOrderResponse>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        check_version(request.preconditions)?;
        let Some(item) = request.items.first().filter(|item| item.quantity > 0) else {
            return Err(Rejection::invalid(vec![Violation::new("items", "required", "must have at least one item")]).into());
        };
        let mut revised = order(OrderStatus::Confirmed);
        if item.quantity == 9 {
            let items = vec![OrderItem { product_id: item.product_id.clone(), quantity: 9, ..OrderItem::default() }];
            revised.revision = Some(orders::Revision { items, requested_at: Some(timestamp()) });
        } else {
            revised.items[0].quantity = item.quantity;
        }
        let changed_product_ids = vec![item.product_id.clone()];
        Ok(Response::new(orders::ReviseOrderResponse { order: Some(revised), changed_product_ids }))
    }

    async fn update_status(&self, request: Request<orders::UpdateStatusRequest>) -> Result<Response<Order>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        check_version(request.preconditions.clone())?;
        if request.status() == OrderStatus::Completed {
            let rejection = Rejection::new(&ILLEGAL_TRANSITION, "a PENDING order cannot become COMPLETED");
            return Err(rejection.with_metadata("allowed", vec!["CANCELLED".to_owned()]).into());
        }
        Ok(Response::new(order(request.status())))
    }

    async fn remove(&self, request: Request<orders::RemoveRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        check_exists(&request.id)?;
        check_version(request.preconditions)?;
        Ok(Response::new(()))
    }
}
