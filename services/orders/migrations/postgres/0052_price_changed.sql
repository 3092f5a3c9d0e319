-- The maximum total that the customer accepts, minor units. NULL: unlimited. An order above it
-- fails for the reason price_changed, which a replica of the previous release cannot read: it leaves
-- such an order out of lists and answers other requests for it with an error.
ALTER TABLE orders
    ADD COLUMN max_total_minor BIGINT,
    ADD CONSTRAINT orders_max_total_minor_check CHECK (max_total_minor >= 0) NOT VALID,
    DROP CONSTRAINT orders_failure_reason_check,
    ADD CONSTRAINT orders_failure_reason_check CHECK (failure_reason IN (
        'insufficient_stock', 'unknown_product', 'product_inactive', 'reservation_expired', 'products_unavailable', 'price_changed'
    )) NOT VALID;
