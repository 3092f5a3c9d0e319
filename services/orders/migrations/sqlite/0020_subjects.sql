-- A subject has up to 287 characters: the prefix of its issuer and a sub. SQLite cannot alter a check; its manual
-- (lang_altertable, section 7) changes the text of the schema where the format of the rows stays the same.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'length(user_id) BETWEEN 1 AND 128', 'length(user_id) BETWEEN 1 AND 287')
    WHERE type = 'table' AND name = 'orders';
PRAGMA writable_schema = RESET;

-- The subject that removed an order. NULL if an earlier version of the service removed it. The new column also makes every
-- connection read the schema again.
ALTER TABLE orders ADD COLUMN deleted_by TEXT CHECK (deleted_by IS NULL OR deleted_at IS NOT NULL);
-- Lists of administrators include removed orders.
CREATE INDEX orders_removed ON orders (created_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX orders_removed_by_user ON orders (user_id, created_at, id) WHERE deleted_at IS NOT NULL;
