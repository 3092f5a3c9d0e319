-- Another reason of a failure: the total exceeds the maximum that the customer accepts. SQLite
-- cannot alter a check, see 0020.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
    SET sql = replace(sql, '''reservation_expired'', ''products_unavailable'')', '''reservation_expired'', ''products_unavailable'', ''price_changed'')')
    WHERE type = 'table' AND name = 'orders';
PRAGMA writable_schema = RESET;

-- That maximum, minor units. NULL: unlimited. The new column also makes every connection read the
-- schema again.
ALTER TABLE orders ADD COLUMN max_total_minor INTEGER CHECK (max_total_minor >= 0);
