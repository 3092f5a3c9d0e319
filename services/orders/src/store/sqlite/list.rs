//! Query for a page of orders in SQLite.

use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::row::{columns, to_ms};
use crate::{order::min_uuid_at, store::queries::List};

/// Selects one order more than the page, to know whether another page follows.
pub(super) fn select(list: &List) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::default();
    push_select(&mut query, list);
    query
}

fn push_select(query: &mut QueryBuilder<Sqlite>, list: &List) {
    query.push(concat!("SELECT ", columns!(), " FROM ("));
    if let Some(product_id) = list.walked_product() {
        push_page_of_product(query, list, product_id);
        query.push(") o JOIN order_lines l ON l.order_id = o.id ORDER BY o.id DESC, l.position");
        return;
    }
    push_page(query, list, "deleted_at IS NULL");
    if list.with_removed {
        // Removed orders have indexes of their own.
        query.push(" UNION ALL ");
        push_page(query, list, "deleted_at IS NOT NULL");
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(list.lookahead());
    }
    query.push(") o JOIN order_lines l ON l.order_id = o.id ORDER BY o.created_at DESC, o.id DESC, l.position");
}

/// Adds a page of the orders that `filter` selects. Adds only the filters that are set, because
/// each combination has its own index.
fn push_page(query: &mut QueryBuilder<Sqlite>, list: &List, filter: &'static str) {
    query.push("SELECT * FROM (SELECT * FROM orders WHERE ").push(filter);
    if let Some(user_id) = &list.user_id {
        query.push(" AND user_id = ").push_bind(user_id.to_string());
    }
    if let Some(status) = list.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(from) = list.created_from {
        query.push(" AND created_at >= ").push_bind(to_ms(from));
    }
    if let Some(to) = list.created_to {
        query.push(" AND created_at < ").push_bind(to_ms(to));
    }
    if let Some(product_id) = list.product_id {
        query.push(" AND EXISTS (SELECT 1 FROM order_lines WHERE order_id = orders.id AND product_id = ").push_bind(product_id).push(")");
    }
    if let Some(after) = list.after {
        query.push(" AND (created_at, id) < (").push_bind(to_ms(after.created_at)).push(", ").push_bind(after.id.as_uuid()).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(list.lookahead()).push(")");
}

/// Adds a page of the orders with a line of the product, by id, which sorts by time. `CROSS JOIN`
/// keeps the planner from reading the orders first.
fn push_page_of_product(query: &mut QueryBuilder<Sqlite>, list: &List, product_id: Uuid) {
    query.push("SELECT found.* FROM order_lines line CROSS JOIN orders found ON found.id = line.order_id WHERE line.product_id = ");
    query.push_bind(product_id);
    if !list.with_removed {
        query.push(" AND found.deleted_at IS NULL");
    }
    if let Some(status) = list.status {
        query.push(" AND found.status = ").push_bind(status.as_str());
    }
    if let Some(from) = list.created_from {
        query.push(" AND line.order_id >= ").push_bind(min_uuid_at(from));
    }
    if let Some(to) = list.created_to {
        query.push(" AND line.order_id < ").push_bind(min_uuid_at(to));
    }
    if let Some(after) = list.after {
        query.push(" AND line.order_id < ").push_bind(after.id.as_uuid());
    }
    query.push(" ORDER BY line.order_id DESC LIMIT ").push_bind(list.lookahead());
}

#[cfg(test)]
mod tests;
