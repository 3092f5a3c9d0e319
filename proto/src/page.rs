//! Size of a page. A list response ends early instead of exceeding the maximum message size.

use prost::Message;

/// Maximum size of the items of a page, bytes. A page of 100 products with the longest texts fits.
pub const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Maximum size of a response message that a client accepts, bytes: a page and its cursor, or one
/// item of any size.
pub const MAX_RESPONSE_BYTES: usize = 2 * MAX_PAGE_BYTES;

/// Returns the number of items that fit on a page of [`MAX_PAGE_BYTES`]: at least 1, unless there
/// is none.
pub fn fitting<M: Message>(items: &[M]) -> usize {
    let mut bytes = 0_usize;
    let fits = |item: &&M| {
        bytes = bytes.saturating_add(item.encoded_len());
        bytes <= MAX_PAGE_BYTES
    };
    items.iter().take_while(fits).count().max(usize::from(!items.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::v1::{Order, OrderItem};

    fn orders(count: usize, lines: usize) -> Vec<Order> {
        let item = OrderItem { product_id: "p".repeat(36), name: Some("x".repeat(800)), ..OrderItem::default() };
        vec![Order { items: vec![item; lines], ..Order::default() }; count]
    }

    #[test]
    fn page_ends_before_the_limit() {
        let long = orders(100, 100);
        let count = fitting(&long);
        let bytes = |count: usize| long.iter().take(count).map(Message::encoded_len).sum::<usize>();
        assert!((1..100).contains(&count) && bytes(count) <= MAX_PAGE_BYTES && bytes(count + 1) > MAX_PAGE_BYTES, "{count}");
    }

    #[test]
    fn short_items_and_a_single_long_one_fit() {
        assert_eq!((fitting(&orders(100, 1)), fitting(&orders(0, 0)), fitting(&orders(2, 5_000))), (100, 0, 1));
    }
}
