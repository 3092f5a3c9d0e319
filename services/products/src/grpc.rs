//! gRPC service `palisade.products.v1`: the catalogue for users, stock reservations for the orders
//! service.

mod convert;
mod rejections;
mod stock;

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    caller::CallerKey,
    clock::Clock,
    context::{self, Context},
    cursor::Cursor,
    method_table::{Access, Method},
    parse,
    priority::Priority,
    rejection::{Rejection, Violation, reasons},
    trace,
};
use palisade_proto::{
    page,
    products::v1::{
        self as proto, AdjustStockRequest, ConfirmReservationRequest, CreateProductRequest, FindAllRequest, FindAllResponse,
        FindHistoryRequest, FindHistoryResponse, FindOneRequest, FulfilReservationRequest, ListReservationsRequest,
        ListReservationsResponse, ListStockAdjustmentsRequest, ListStockAdjustmentsResponse, PatchProductRequest,
        ReleaseReservationRequest, RemoveRequest, ReserveStockRequest, ReviseReservationRequest, UpdateRequest,
        products_service_server::ProductsService,
    },
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    metrics,
    product::{ValidatedProduct, new_id},
    reservation::{ConfirmOutcome, FulfilOutcome, ReserveOutcome, ReviseOutcome, Revision},
    search_limit::SearchLimit,
    store::{CreateOutcome, RemoveOutcome, Store},
};

const READ: Access = Access::Scope("products:read");
const WRITE: Access = Access::Scope("products:write");
/// Stock moves only on behalf of the orders service itself; user tokens cannot grant this.
const RESERVE: Access = Access::Service { scope: "products:reserve", callers: &["orders"] };

// Costs in tokens of the caller's rate limit, the same as over HTTP. A read costs one.
const LIST_COST: u32 = 4;
const WRITE_COST: u32 = 2;

/// Method table: required access, cost and priority of each method.
pub static METHODS: [Method; 15] = [
    Method::grpc("/palisade.products.v1.ProductsService/CreateProduct", WRITE).cost(WRITE_COST),
    Method::grpc("/palisade.products.v1.ProductsService/FindAll", READ).cost(LIST_COST),
    Method::grpc("/palisade.products.v1.ProductsService/FindOne", READ),
    // It names the users who changed the product.
    Method::grpc("/palisade.products.v1.ProductsService/FindHistory", WRITE).cost(LIST_COST),
    Method::grpc("/palisade.products.v1.ProductsService/Update", WRITE).cost(WRITE_COST),
    Method::grpc("/palisade.products.v1.ProductsService/PatchProduct", WRITE).cost(WRITE_COST),
    Method::grpc("/palisade.products.v1.ProductsService/Remove", WRITE).cost(WRITE_COST),
    Method::grpc("/palisade.products.v1.ProductsService/AdjustStock", WRITE).cost(WRITE_COST),
    Method::grpc("/palisade.products.v1.ProductsService/ListStockAdjustments", WRITE).cost(LIST_COST),
    Method::grpc("/palisade.products.v1.ProductsService/ReserveStock", RESERVE),
    Method::grpc("/palisade.products.v1.ProductsService/ConfirmReservation", RESERVE).priority(Priority::Critical),
    Method::grpc("/palisade.products.v1.ProductsService/ReleaseReservation", RESERVE).priority(Priority::Critical),
    Method::grpc("/palisade.products.v1.ProductsService/ReviseReservation", RESERVE),
    Method::grpc("/palisade.products.v1.ProductsService/FulfilReservation", RESERVE),
    Method::grpc("/palisade.products.v1.ProductsService/ListReservations", RESERVE).cost(LIST_COST),
];

/// Maximum page size of `ListReservations`.
const MAX_RESERVATIONS: u32 = 1_000;
const DEFAULT_RESERVATIONS: u32 = 500;

/// Implementation of the gRPC service.
pub struct Products {
    /// Product store.
    pub store: Arc<dyn Store>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// Seals page positions into cursors.
    pub cursor: Cursor,
    /// Limit of concurrent searches.
    pub searches: SearchLimit,
    /// TTL of a hold.
    pub hold_ttl: Duration,
}

#[tonic::async_trait]
impl ProductsService for Products {
    async fn create_product(&self, request: Request<CreateProductRequest>) -> Result<Response<proto::Product>, Status> {
        let request = request.into_inner();
        let draft = draft(request.product)?;
        let principal = context::current_principal()?;
        let key = convert::idempotency_key(&principal, request.idempotency_key, &draft)?;
        let (now, keyed) = (self.clock.now(), key.is_some());
        let created = self.store.create(new_id(now), draft, key, principal.subject.clone(), now).await;
        let created = created.map_err(rejections::from_store_error)?;
        if keyed {
            metrics::record_key_outcome(metrics::key_outcome(&created));
            trace::record("app.idempotency.outcome", metrics::key_outcome(&created));
        }
        match created {
            CreateOutcome::Created { product, replayed } => Ok(convert::created(&product, replayed)),
            CreateOutcome::KeyReused => Err(rejections::key_reused().into()),
        }
    }

    async fn find_all(&self, request: Request<FindAllRequest>) -> Result<Response<FindAllResponse>, Status> {
        let query = convert::query(&self.cursor, request.into_inner())?;
        let (store, list) = (self.store.clone(), query.clone());
        let list = async move { store.list(list).await };
        let page = if query.filter().text.is_some() {
            let caller = CallerKey::of_context(&context::current().unwrap_or_else(Context::background));
            self.searches.run(caller, list).await?
        } else {
            list.await
        };
        let page = page.map_err(rejections::from_store_error)?;
        Ok(Response::new(convert::page(&self.cursor, &query, page)))
    }

    async fn find_one(&self, request: Request<FindOneRequest>) -> Result<Response<proto::Product>, Status> {
        let product = self.store.find(parse::parse_uuid(&request.get_ref().id)?).await.map_err(rejections::from_store_error)?;
        Ok(Response::new(convert::product(&product.ok_or_else(rejections::not_found)?)))
    }

    async fn find_history(&self, request: Request<FindHistoryRequest>) -> Result<Response<FindHistoryResponse>, Status> {
        let history = self.store.history(parse::parse_uuid(&request.get_ref().id)?).await.map_err(rejections::from_store_error)?;
        let items = history.ok_or_else(rejections::not_found)?.into_iter().map(convert::change);
        Ok(Response::new(FindHistoryResponse { items: items.collect() }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<proto::Product>, Status> {
        let request = request.into_inner();
        let (id, draft) = (parse::parse_uuid(&request.id)?, draft(request.product)?);
        let preconditions = convert::preconditions(request.preconditions, request.expected_version)?;
        let actor = context::current_principal()?.subject.clone();
        let updated = self.store.update(id, draft, preconditions, actor, self.clock.now()).await;
        Ok(stock::updated(updated.map_err(rejections::from_store_error)?)?)
    }

    async fn patch_product(&self, request: Request<PatchProductRequest>) -> Result<Response<proto::Product>, Status> {
        Ok(stock::patch(self, request.into_inner()).await?)
    }

    async fn adjust_stock(&self, request: Request<AdjustStockRequest>) -> Result<Response<proto::StockAdjustment>, Status> {
        stock::adjust(self, request.into_inner()).await
    }

    async fn list_stock_adjustments(
        &self,
        request: Request<ListStockAdjustmentsRequest>,
    ) -> Result<Response<ListStockAdjustmentsResponse>, Status> {
        Ok(stock::list(self, request.into_inner()).await?)
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        match self
            .store
            .remove(
                parse::parse_uuid(&request.id)?,
                convert::preconditions(request.preconditions, request.expected_version)?,
                self.clock.now(),
            )
            .await
            .map_err(rejections::from_store_error)?
        {
            RemoveOutcome::Removed => Ok(Response::new(())),
            RemoveOutcome::NotFound => Err(rejections::not_found().into()),
            RemoveOutcome::VersionMismatch => Err(rejections::version_mismatch().into()),
            RemoveOutcome::InUse => Err(rejections::product_in_use().into()),
        }
    }

    async fn reserve_stock(&self, request: Request<ReserveStockRequest>) -> Result<Response<proto::Reservation>, Status> {
        let request = request.into_inner();
        let id = parse::parse_uuid(&request.reservation_id)?;
        let lines = convert::reservation_lines(&request.lines, request.max_total_minor, None)?;
        let now = self.clock.now();
        let reserved = if request.confirm {
            self.store.reserve_and_confirm(id, lines, now, self.hold_ttl).await
        } else {
            self.store.reserve(id, lines, now, self.hold_ttl).await
        };
        let reserved = reserved.map_err(rejections::from_store_error)?;
        metrics::record_reserve(&reserved);
        match reserved {
            ReserveOutcome::Held(reservation) => Ok(Response::new(convert::reservation(&reservation))),
            ReserveOutcome::Refused { reason, product_id } => Err(rejections::refused(reason, product_id).into()),
            ReserveOutcome::DifferentLines => Err(rejections::different_lines().into()),
            ReserveOutcome::Released => Err(rejections::reserve_after_release().into()),
            ReserveOutcome::Expired => Err(rejections::expired().into()),
        }
    }

    async fn confirm_reservation(&self, request: Request<ConfirmReservationRequest>) -> Result<Response<proto::Reservation>, Status> {
        let id = parse::parse_uuid(&request.get_ref().reservation_id)?;
        match self.store.confirm(id, self.clock.now()).await.map_err(rejections::from_store_error)? {
            ConfirmOutcome::Confirmed(reservation) => {
                metrics::record_confirm();
                Ok(Response::new(convert::reservation(&reservation)))
            }
            ConfirmOutcome::Released => Err(rejections::released().into()),
            ConfirmOutcome::Expired => Err(rejections::expired().into()),
            ConfirmOutcome::Refused => Err(rejections::confirm_of_refused().into()),
            ConfirmOutcome::Unknown => Err(rejections::unknown_reservation().into()),
        }
    }

    async fn release_reservation(&self, request: Request<ReleaseReservationRequest>) -> Result<Response<proto::Reservation>, Status> {
        let id = parse::parse_uuid(&request.get_ref().reservation_id)?;
        let reservation = self.store.release(id, self.clock.now()).await.map_err(rejections::from_store_error)?;
        metrics::record_release();
        Ok(Response::new(convert::reservation(&reservation)))
    }

    async fn revise_reservation(&self, request: Request<ReviseReservationRequest>) -> Result<Response<proto::Reservation>, Status> {
        let request = request.into_inner();
        let id = parse::parse_uuid(&request.reservation_id)?;
        let out_of_range = (request.revision < 1).then(|| Violation::new("revision", "out_of_range", "must be at least 1"));
        let lines = convert::reservation_lines(&request.lines, request.max_total_minor, out_of_range)?;
        let revised = self.store.revise(id, Revision { number: request.revision, lines }, self.clock.now()).await;
        let revised = revised.map_err(rejections::from_store_error)?;
        metrics::record_revise(&revised);
        match revised {
            ReviseOutcome::Revised(reservation) => Ok(Response::new(convert::reservation(&reservation))),
            ReviseOutcome::Refused { reason, product_id } => Err(rejections::refused(reason, product_id).into()),
            ReviseOutcome::DifferentLines | ReviseOutcome::Superseded => Err(rejections::superseded().into()),
            ReviseOutcome::NotConfirmed => Err(rejections::not_confirmed().into()),
            ReviseOutcome::Unknown => Err(rejections::unknown_reservation().into()),
        }
    }

    async fn fulfil_reservation(&self, request: Request<FulfilReservationRequest>) -> Result<Response<proto::Reservation>, Status> {
        let id = parse::parse_uuid(&request.get_ref().reservation_id)?;
        match self.store.fulfil(id, self.clock.now()).await.map_err(rejections::from_store_error)? {
            FulfilOutcome::Fulfilled(reservation) => {
                metrics::record_fulfilment();
                Ok(Response::new(convert::reservation(&reservation)))
            }
            FulfilOutcome::NotConfirmed => Err(rejections::not_confirmed().into()),
            FulfilOutcome::Unknown => Err(rejections::unknown_reservation().into()),
        }
    }

    async fn list_reservations(&self, request: Request<ListReservationsRequest>) -> Result<Response<ListReservationsResponse>, Status> {
        let request = request.into_inner();
        let after: Option<Uuid> = if request.after_id.is_empty() { None } else { Some(parse::parse_uuid(&request.after_id)?) };
        let limit = if request.limit == 0 { DEFAULT_RESERVATIONS } else { request.limit };
        if limit > MAX_RESERVATIONS {
            return Err(Rejection::new(&reasons::INVALID_PARAMETER, "limit must be between 1 and 1000").into());
        }
        let reservations = self.store.list_reservations(after, limit).await.map_err(rejections::from_store_error)?;
        let mut items: Vec<_> = reservations.iter().map(convert::reservation).collect();
        items.truncate(page::fitting(&items));
        Ok(Response::new(ListReservationsResponse { items }))
    }
}

fn draft(input: Option<proto::ProductInput>) -> Result<ValidatedProduct, Rejection> {
    let actor = context::current_principal()?.actor.clone();
    ValidatedProduct::new(convert::input(input.unwrap_or_default(), actor.as_deref())).map_err(Rejection::invalid)
}
