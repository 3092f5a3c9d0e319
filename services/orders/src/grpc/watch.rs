//! `WatchOrder` server stream: the current state of an order, then each change, up to a terminal
//! status.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use palisade_middleware::{
    auth::Principal,
    rejection::{Rejection, reasons},
};
use palisade_proto::orders::v1::{OrderEvent, WatchOrderRequest};
use tonic::{Response, Status, metadata::MetadataValue};

use super::{Orders, convert, refusal};
use crate::watch::{OrderStatusStream, Start};

/// Response metadata: the order is in a terminal state that the caller has already received.
const ENDED: &str = "order-ended";

/// Response stream.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<OrderEvent, Status>> + Send>>;

impl Orders {
    pub(super) async fn watch(&self, principal: &Principal, request: WatchOrderRequest) -> Result<Response<Events>, Status> {
        let start = match request.after_sequence {
            0 => Start::Now,
            1.. => Start::After(request.after_sequence),
            _ => return Err(Rejection::new(&reasons::INVALID_PARAMETER, "after_sequence must not be negative").into()),
        };
        // Authorize first, then start to watch before the order is read, so that no change is
        // missed in between.
        let id = self.find_authorized(principal, &request.id).await?.id;
        let watching = self.watchers.watch(id);
        let order = self.find_authorized(principal, &request.id).await?;
        let stream = OrderStatusStream::new(self.store.clone(), watching, order, start).await.map_err(refusal::from_store_error)?;
        let finished = stream.is_finished();
        let events = stream.into_stream().map(|order| Ok(OrderEvent { sequence: order.version, order: Some(convert::order(&order)) }));
        let mut response = Response::new(Box::pin(events) as Events);
        if finished {
            response.metadata_mut().insert(ENDED, MetadataValue::from_static("true"));
        }
        Ok(response)
    }
}
