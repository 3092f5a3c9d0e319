-- The schema of migrations/postgres in SQLite's words. Ids are 16 bytes, times are milliseconds since 1970.

-- Which status may follow which. It guards the orders and their history, and the audit reads it.
CREATE TABLE legal_moves (
    from_status TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    PRIMARY KEY (from_status, to_status)
) STRICT, WITHOUT ROWID;
INSERT INTO legal_moves (from_status, to_status) VALUES
    ('PENDING', 'PRODUCT_RESERVED'),
    ('PENDING', 'FAILED'),
    ('PENDING', 'CANCELLED'),
    ('PRODUCT_RESERVED', 'CONFIRMED'),
    ('PRODUCT_RESERVED', 'FAILED'),
    ('PRODUCT_RESERVED', 'CANCELLED'),
    ('CONFIRMED', 'COMPLETED'),
    ('CONFIRMED', 'CANCELLED');

CREATE TABLE orders (
    id              BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    user_id         TEXT NOT NULL CHECK (length(user_id) BETWEEN 1 AND 128),
    status          TEXT NOT NULL CHECK (status IN ('PENDING', 'PRODUCT_RESERVED', 'CONFIRMED', 'FAILED', 'COMPLETED', 'CANCELLED')),
    failure_reason  TEXT CHECK (failure_reason IN ('insufficient_stock', 'unknown_product', 'product_inactive', 'reservation_expired', 'products_unavailable')),
    total_minor     INTEGER CHECK (total_minor >= 0),
    version         INTEGER NOT NULL CHECK (version >= 1),
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER,
    trace_parent    TEXT,
    -- The saga: NULL in due_at means that nothing is left to do.
    due_at          INTEGER,
    fence           INTEGER NOT NULL CHECK (fence >= 1),
    attempts        INTEGER NOT NULL CHECK (attempts >= 0),
    saga_deadline   INTEGER NOT NULL,
    release_pending INTEGER NOT NULL CHECK (release_pending IN (0, 1)),
    last_error      TEXT,
    CONSTRAINT failed_for_a_reason CHECK ((status = 'FAILED') = (failure_reason IS NOT NULL)),
    CONSTRAINT priced_once_reserved CHECK (status NOT IN ('PRODUCT_RESERVED', 'CONFIRMED', 'COMPLETED') OR total_minor IS NOT NULL),
    CONSTRAINT released_at_its_end CHECK (NOT release_pending OR status IN ('FAILED', 'CANCELLED')),
    CONSTRAINT due_while_unfinished CHECK ((due_at IS NOT NULL) = (release_pending OR status IN ('PENDING', 'PRODUCT_RESERVED'))),
    CONSTRAINT removed_at_its_end CHECK (deleted_at IS NULL OR status IN ('FAILED', 'COMPLETED', 'CANCELLED'))
) STRICT;
CREATE INDEX orders_due ON orders (due_at) WHERE due_at IS NOT NULL;
-- One index for each way to list: all, by status, by user, by both.
CREATE INDEX orders_newest ON orders (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX orders_newest_by_status ON orders (status, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX orders_newest_by_user ON orders (user_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX orders_newest_by_user_and_status ON orders (user_id, status, created_at, id) WHERE deleted_at IS NULL;

CREATE TABLE order_lines (
    order_id         BLOB NOT NULL REFERENCES orders (id),
    position         INTEGER NOT NULL CHECK (position >= 1),
    product_id       BLOB NOT NULL CHECK (length(product_id) = 16),
    quantity         INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    -- Copied from the product when its stock was reserved.
    name             TEXT,
    unit_price_minor INTEGER CHECK (unit_price_minor >= 0),
    PRIMARY KEY (order_id, position),
    UNIQUE (order_id, product_id),
    CONSTRAINT copied_together CHECK ((name IS NULL) = (unit_price_minor IS NULL))
) STRICT, WITHOUT ROWID;

-- One row for each status an order has had; version counts them.
CREATE TABLE order_history (
    order_id    BLOB NOT NULL REFERENCES orders (id),
    version     INTEGER NOT NULL CHECK (version >= 1),
    from_status TEXT,
    to_status   TEXT NOT NULL,
    reason      TEXT,
    actor       TEXT CHECK (actor IN ('saga', 'owner', 'admin')),
    at          INTEGER NOT NULL,
    PRIMARY KEY (order_id, version),
    FOREIGN KEY (from_status, to_status) REFERENCES legal_moves (from_status, to_status),
    CONSTRAINT starts_pending CHECK ((version = 1) = (from_status IS NULL) AND (version = 1) = (actor IS NULL) AND (version > 1 OR to_status = 'PENDING'))
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id     BLOB NOT NULL UNIQUE CHECK (length(event_id) = 16),
    order_id     BLOB NOT NULL,
    version      INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    payload      TEXT NOT NULL,
    trace_parent TEXT,
    created_at   INTEGER NOT NULL,
    published_at INTEGER,
    UNIQUE (order_id, version),
    FOREIGN KEY (order_id, version) REFERENCES order_history (order_id, version)
) STRICT;
CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- At most one row: events from before this time may have been pruned.
CREATE TABLE outbox_horizon (
    only_one      INTEGER PRIMARY KEY CHECK (only_one = 1),
    pruned_before INTEGER NOT NULL
) STRICT;

CREATE TABLE idempotency_keys (
    subject     TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    order_id    BLOB NOT NULL REFERENCES orders (id),
    answer      BLOB,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What a bug must not do to an order, whoever has it.
CREATE TRIGGER guard_order BEFORE UPDATE ON orders BEGIN
    SELECT RAISE(ABORT, 'an order changed without a change of status')
        WHERE NEW.status = OLD.status
        AND (NEW.total_minor IS NOT OLD.total_minor OR NEW.failure_reason IS NOT OLD.failure_reason OR NEW.version <> OLD.version OR NEW.updated_at <> OLD.updated_at);
    SELECT RAISE(ABORT, 'an order made an illegal move')
        WHERE NEW.status <> OLD.status
        AND (NOT EXISTS (SELECT 1 FROM legal_moves WHERE from_status = OLD.status AND to_status = NEW.status) OR NEW.version <> OLD.version + 1);
    SELECT RAISE(ABORT, 'an order changed what never changes')
        WHERE NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR NEW.created_at <> OLD.created_at OR NEW.fence < OLD.fence;
END;
CREATE TRIGGER keep_orders BEFORE DELETE ON orders BEGIN SELECT RAISE(ABORT, 'orders are never deleted'); END;
CREATE TRIGGER keep_history_update BEFORE UPDATE ON order_history BEGIN SELECT RAISE(ABORT, 'history is never changed'); END;
CREATE TRIGGER keep_history_delete BEFORE DELETE ON order_history BEGIN SELECT RAISE(ABORT, 'history is never deleted'); END;
CREATE TRIGGER keep_lines BEFORE DELETE ON order_lines BEGIN SELECT RAISE(ABORT, 'lines are never deleted'); END;
-- Name and price are copied once; nothing else of a line changes.
CREATE TRIGGER keep_line BEFORE UPDATE ON order_lines
    WHEN OLD.name IS NOT NULL OR NEW.order_id <> OLD.order_id OR NEW.position <> OLD.position OR NEW.product_id <> OLD.product_id OR NEW.quantity <> OLD.quantity
BEGIN SELECT RAISE(ABORT, 'a line changed what never changes'); END;
