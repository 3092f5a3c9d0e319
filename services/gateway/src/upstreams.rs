//! gRPC clients of the services behind the gateway.

use http::{Request, Response};
use palisade_proto::{
    orders::v1::orders_service_client::OrdersServiceClient, page::MAX_RESPONSE_BYTES,
    products::v1::products_service_client::ProductsServiceClient,
};
use tonic::{Status, body::Body};
use tower::{BoxError, Service, ServiceExt, util::BoxCloneSyncService};

use crate::{cache::Cache, config};

/// Type-erased client stack.
type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// Client of the orders service.
pub(crate) type OrdersClient = OrdersServiceClient<Transport>;

/// Typed clients of the services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstreams {
    pub(crate) products: ProductsServiceClient<Transport>,
    pub(crate) orders: OrdersClient,
    pub(crate) events: config::OrderEvents,
    pub(crate) cache: Cache,
}

impl Upstreams {
    /// Calls products and orders through these stacks ([`palisade_middleware::client::Client`]),
    /// which contain the deadline, retries, circuit breaker and internal token.
    pub fn new<P, O>(products: P, orders: O) -> Self
    where
        P: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
        O: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    {
        Self {
            products: ProductsServiceClient::new(Transport::new(products.map_err(into_status)))
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            orders: OrdersServiceClient::new(Transport::new(orders.map_err(into_status))).max_decoding_message_size(MAX_RESPONSE_BYTES),
            events: config::OrderEvents::default(),
            cache: Cache::default(),
        }
    }

    /// Sets the event stream settings.
    #[must_use]
    pub fn with_events(self, events: config::OrderEvents) -> Self {
        Self { events, ..self }
    }

    /// Sets the response cache.
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }
}

/// Extracts the status of a stack error, with its source.
fn into_status(error: impl Into<BoxError>) -> Status {
    Status::from_error(error.into())
}
