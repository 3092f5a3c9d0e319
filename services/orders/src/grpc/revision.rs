//! `ReviseOrder`: stores the request, runs the revision, and waits for its end.

use std::{collections::BTreeSet, time::Duration};

use palisade_middleware::{auth::Principal, context, rejection::Rejection};
use palisade_proto::{
    orders::v1::{ReviseOrderRequest, ReviseOrderResponse},
    reasons as shop_reasons,
};
use tokio::{sync::oneshot, time::timeout};
use tonic::{Response, Status};

use super::{Orders, caller, convert, rejections};
use crate::{
    order::{FailureReason, Line, MaxTotal, NewOrder, Order},
    store::RequestRevisionResult,
};

/// `Retry-After` while another revision of the order is pending.
const IN_PROGRESS_RETRY: Duration = Duration::from_secs(1);

/// Order after a revision that ended, and the reason if it was refused.
type End = (Order, Option<FailureReason>);

impl Orders {
    pub(super) async fn revise(&self, request: ReviseOrderRequest) -> Result<Response<ReviseOrderResponse>, Status> {
        let principal = context::current_principal()?;
        let items: Vec<(&str, i64)> = request.items.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect();
        // An id that is none is reported before the body.
        let id = convert::id(&request.id)?;
        let (lines, max_total) = wanted(&principal, &items, request.max_total_minor)?;
        let before = self.find_authorized(&principal, &request.id).await?;
        if let Err(reason) = self.worker.check() {
            return Err(rejections::no_worker(&reason).into());
        }
        let by = caller::actor(&principal);
        let role = by.role;
        let preconditions = convert::preconditions(request.preconditions);
        let lease = Duration::from_millis(self.config.lease_ms);
        let (sender, requested) = oneshot::channel();
        let (finish, finished) = oneshot::channel::<End>();
        let (store, executor, now) = (self.store.clone(), self.executor.clone(), self.clock.now());
        // Cancelling the call cancels neither the request nor the revision.
        self.process.run(context::outlive_request({
            let wanted = (lines.clone(), max_total);
            async move {
                let result = store.request_revision(id, wanted, by, preconditions, lease, now).await;
                let claimed = if let Ok(RequestRevisionResult::Requested(claimed)) = &result { Some(claimed.clone()) } else { None };
                // Fails if the call was cancelled.
                let _ = sender.send(result);
                if let Some(claimed) = claimed {
                    let _ = finish.send(executor.revise(claimed).await);
                }
            }
        }));
        let result = requested.await.map_err(|_| Rejection::internal("the revision task ended without a result"))?;
        let order = match result.map_err(rejections::from_store_error)? {
            RequestRevisionResult::Requested(claimed) => self.wait_for_revision(finished, claimed.saga.order).await?,
            RequestRevisionResult::Pending(order) | RequestRevisionResult::Unchanged(order) => order,
            RequestRevisionResult::InProgress => {
                let rejection = Rejection::new(&shop_reasons::REVISION_IN_PROGRESS, "another revision of the order is pending");
                return Err(rejection.with_retry_after(IN_PROGRESS_RETRY).into());
            }
            RequestRevisionResult::Illegal(order) => {
                return Err(rejections::not_revisable(order.status, order.status.allowed_transitions(role)).into());
            }
            RequestRevisionResult::Exhausted => {
                return Err(Rejection::new(&shop_reasons::TOO_MANY_REVISIONS, "the order was revised too often, place a new one").into());
            }
            RequestRevisionResult::VersionMismatch => return Err(rejections::version_mismatch().into()),
            RequestRevisionResult::NotFound => return Err(rejections::not_found().into()),
        };
        let products: BTreeSet<_> = before.lines.iter().chain(&lines).map(|line| line.product_id).collect();
        Ok(Response::new(ReviseOrderResponse {
            order: Some(convert::order(&order)),
            changed_product_ids: products.into_iter().map(|product| product.to_string()).collect(),
        }))
    }

    /// Waits for the end of a revision. Returns the order with its pending revision when the wait
    /// ends first.
    async fn wait_for_revision(&self, finished: oneshot::Receiver<End>, requested: Order) -> Result<Order, Rejection> {
        let (order, refused) = match timeout(self.inline_wait(), finished).await {
            Ok(Ok(end)) => end,
            Ok(Err(_)) | Err(_) => (requested.clone(), None),
        };
        match refused {
            Some(reason) => Err(rejections::revision_refused(reason)),
            // Cancelled, or ended by a worker that took the order over.
            None if order.revision.is_none() && !has_lines_of(&order, &requested) => Err(self.ended_elsewhere(&requested).await?),
            None => Ok(order),
        }
    }
}

impl Orders {
    /// Returns the rejection of a revision that a worker has ended, or a cancellation.
    async fn ended_elsewhere(&self, requested: &Order) -> Result<Rejection, Rejection> {
        let history = self.store.history(requested.id).await.map_err(rejections::from_store_error)?;
        let end = history.into_iter().find(|entry| entry.version == requested.version + 1);
        let refusal = end.and_then(|end| end.reason).and_then(|reason| reason.parse::<FailureReason>().ok());
        let conflict = || Rejection::new(&shop_reasons::CONFLICT, "the order was changed during its revision");
        Ok(refusal.map_or_else(conflict, rejections::revision_refused))
    }
}

/// Validates the lines and the maximum total. All violations are reported at once.
fn wanted(principal: &Principal, items: &[(&str, i64)], max_total_minor: Option<i64>) -> Result<(Vec<Line>, Option<MaxTotal>), Rejection> {
    let max_total = max_total_minor.map(MaxTotal::new).transpose();
    match (NewOrder::new(principal.subject.clone(), items), max_total) {
        (Ok(order), Ok(max_total)) => Ok((order.into_lines(), max_total)),
        (order, max_total) => Err(Rejection::invalid(order.err().into_iter().flatten().chain(max_total.err()).collect())),
    }
}

fn has_lines_of(order: &Order, requested: &Order) -> bool {
    let quantities = |lines: &[Line]| lines.iter().map(|line| (line.product_id, line.quantity)).collect::<Vec<_>>();
    requested.revision.as_ref().is_some_and(|revision| quantities(&order.lines) == quantities(&revision.lines))
}
