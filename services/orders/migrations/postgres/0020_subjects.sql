-- A subject has up to 287 characters: the prefix of its issuer and a sub. Existing rows are shorter, so they need no check.
ALTER TABLE orders DROP CONSTRAINT orders_user_id_check;
ALTER TABLE orders ADD CONSTRAINT orders_user_id_check CHECK (char_length(user_id) BETWEEN 1 AND 287) NOT VALID;

-- The subject that removed an order. NULL if an earlier version of the service removed it.
ALTER TABLE orders ADD COLUMN deleted_by TEXT;
ALTER TABLE orders ADD CONSTRAINT removed_by_somebody CHECK (deleted_by IS NULL OR deleted_at IS NOT NULL) NOT VALID;
-- Lists of administrators include removed orders.
CREATE INDEX orders_removed ON orders (created_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX orders_removed_by_user ON orders (user_id, created_at, id) WHERE deleted_at IS NOT NULL;
