-- Lists of the orders of a product. Blocks new orders while it is built: for a large table, an
-- operator can create it before the rollout, with CREATE INDEX CONCURRENTLY and this name.
CREATE INDEX IF NOT EXISTS order_lines_by_product ON order_lines (product_id, order_id);
-- Lists of administrators by status include removed orders.
CREATE INDEX orders_removed_by_status ON orders (status, created_at, id) WHERE deleted_at IS NOT NULL;
