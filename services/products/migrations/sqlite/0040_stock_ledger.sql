-- Ledger of the stock: one row per change of the supply of a product. The rows of a product add up to its supply.
-- A later migration adds kinds, so they are not checked here.
CREATE TABLE stock_adjustments (
    product_id     BLOB    NOT NULL,
    sequence       INTEGER NOT NULL CHECK (sequence >= 1), -- position in the ledger of the product
    id             BLOB    NOT NULL CHECK (length(id) = 16),
    kind           TEXT    NOT NULL,
    delta          INTEGER NOT NULL, -- units added, negative for units removed
    reason         TEXT    NOT NULL,
    quantity_after INTEGER NOT NULL,
    actor          TEXT, -- NULL: the service itself
    order_id       BLOB, -- of a fulfilment
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (product_id, sequence)
) STRICT, WITHOUT ROWID;

-- For the rows past their retention. An opening stays.
CREATE INDEX stock_adjustments_by_age ON stock_adjustments (created_at) WHERE kind <> 'opening';

-- The answer to an adjustment with an idempotency key. No id: too few units were available.
CREATE TABLE adjustment_keys (
    subject        TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    fingerprint    BLOB    NOT NULL,
    expires_at     INTEGER NOT NULL,
    product_id     BLOB    NOT NULL,
    sequence       INTEGER NOT NULL,
    id             BLOB,
    kind           TEXT    NOT NULL,
    delta          INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    quantity_after INTEGER NOT NULL,
    actor          TEXT,
    order_id       BLOB,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX adjustment_keys_by_expiry ON adjustment_keys (expires_at);

-- Sum of the ledger of the product. A program of the previous release changes the supply only: the triggers below then
-- record the difference.
ALTER TABLE products ADD COLUMN booked INTEGER NOT NULL DEFAULT 0;
-- Version at the last change of another field than the quantity.
ALTER TABLE products ADD COLUMN details_version INTEGER;

INSERT INTO stock_adjustments (product_id, sequence, id, kind, delta, reason, quantity_after, created_at)
    SELECT id, 1,
           unhex(printf('%012x', updated_at) || '7' || substr(hex(randomblob(2)), 2) || substr('89AB', 1 + (random() & 3), 1)
               || substr(hex(randomblob(8)), 2)),
           'opening', supply, '', quantity, updated_at
    FROM products;
UPDATE products SET booked = supply, details_version = version;

CREATE TRIGGER ledger_of_new AFTER INSERT ON products WHEN NEW.supply <> NEW.booked BEGIN
    INSERT INTO stock_adjustments (product_id, sequence, id, kind, delta, reason, quantity_after, created_at)
        SELECT NEW.id, 1,
               unhex(printf('%012x', NEW.updated_at) || '7' || substr(hex(randomblob(2)), 2) || substr('89AB', 1 + (random() & 3), 1)
                   || substr(hex(randomblob(8)), 2)),
               'opening', NEW.supply - NEW.booked, '', NEW.quantity, NEW.updated_at;
    UPDATE products SET booked = NEW.supply WHERE id = NEW.id;
END;

CREATE TRIGGER ledger_of_changed AFTER UPDATE OF supply ON products WHEN NEW.supply <> NEW.booked BEGIN
    INSERT INTO stock_adjustments (product_id, sequence, id, kind, delta, reason, quantity_after, created_at)
        SELECT NEW.id, 1 + coalesce((SELECT max(sequence) FROM stock_adjustments WHERE product_id = NEW.id), 0),
               unhex(printf('%012x', NEW.updated_at) || '7' || substr(hex(randomblob(2)), 2) || substr('89AB', 1 + (random() & 3), 1)
                   || substr(hex(randomblob(8)), 2)),
               'reconciled', NEW.supply - NEW.booked, '', NEW.quantity, NEW.updated_at;
    UPDATE products SET booked = NEW.supply WHERE id = NEW.id;
END;

CREATE TRIGGER ledger_of_removed AFTER DELETE ON products BEGIN
    DELETE FROM stock_adjustments WHERE product_id = OLD.id;
END;

CREATE TRIGGER details_of_new AFTER INSERT ON products WHEN NEW.details_version IS NULL BEGIN
    UPDATE products SET details_version = NEW.version WHERE id = NEW.id;
END;

CREATE TRIGGER details_of_changed AFTER UPDATE OF name, description, price_minor, category, is_active ON products
WHEN NEW.name IS NOT OLD.name OR NEW.description IS NOT OLD.description OR NEW.price_minor IS NOT OLD.price_minor
    OR NEW.category IS NOT OLD.category OR NEW.is_active IS NOT OLD.is_active
BEGIN
    UPDATE products SET details_version = NEW.version WHERE id = NEW.id;
END;
