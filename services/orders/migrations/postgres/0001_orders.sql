-- Which status may follow which. It guards the orders and their history, and the audit reads it.
CREATE TABLE legal_moves (
    from_status TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
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
    id              UUID PRIMARY KEY,
    user_id         TEXT NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 128),
    status          TEXT NOT NULL CHECK (status IN ('PENDING', 'PRODUCT_RESERVED', 'CONFIRMED', 'FAILED', 'COMPLETED', 'CANCELLED')),
    failure_reason  TEXT CHECK (failure_reason IN ('insufficient_stock', 'unknown_product', 'product_inactive', 'reservation_expired', 'products_unavailable')),
    total_minor     BIGINT CHECK (total_minor >= 0),
    version         BIGINT NOT NULL CHECK (version >= 1),
    created_at      TIMESTAMPTZ NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL,
    deleted_at      TIMESTAMPTZ,
    trace_parent    TEXT,
    -- The saga: NULL in due_at means that nothing is left to do.
    due_at          TIMESTAMPTZ,
    fence           BIGINT NOT NULL CHECK (fence >= 1),
    attempts        BIGINT NOT NULL CHECK (attempts >= 0),
    saga_deadline   TIMESTAMPTZ NOT NULL,
    release_pending BOOLEAN NOT NULL,
    last_error      TEXT,
    CONSTRAINT failed_for_a_reason CHECK ((status = 'FAILED') = (failure_reason IS NOT NULL)),
    CONSTRAINT priced_once_reserved CHECK (status NOT IN ('PRODUCT_RESERVED', 'CONFIRMED', 'COMPLETED') OR total_minor IS NOT NULL),
    CONSTRAINT released_at_its_end CHECK (NOT release_pending OR status IN ('FAILED', 'CANCELLED')),
    CONSTRAINT due_while_unfinished CHECK ((due_at IS NOT NULL) = (release_pending OR status IN ('PENDING', 'PRODUCT_RESERVED'))),
    CONSTRAINT removed_at_its_end CHECK (deleted_at IS NULL OR status IN ('FAILED', 'COMPLETED', 'CANCELLED'))
);
CREATE INDEX orders_due ON orders (due_at) WHERE due_at IS NOT NULL;
-- One index for each way to list: all, by status, by user, by both.
CREATE INDEX orders_newest ON orders (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX orders_newest_by_status ON orders (status, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX orders_newest_by_user ON orders (user_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX orders_newest_by_user_and_status ON orders (user_id, status, created_at, id) WHERE deleted_at IS NULL;

CREATE TABLE order_lines (
    order_id         UUID NOT NULL REFERENCES orders (id),
    position         INTEGER NOT NULL CHECK (position >= 1),
    product_id       UUID NOT NULL,
    quantity         BIGINT NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    -- Copied from the product when its stock was reserved.
    name             TEXT,
    unit_price_minor BIGINT CHECK (unit_price_minor >= 0),
    PRIMARY KEY (order_id, position),
    UNIQUE (order_id, product_id),
    CONSTRAINT copied_together CHECK ((name IS NULL) = (unit_price_minor IS NULL))
);

-- One row for each status an order has had; version counts them.
CREATE TABLE order_history (
    order_id    UUID NOT NULL REFERENCES orders (id),
    version     BIGINT NOT NULL CHECK (version >= 1),
    from_status TEXT,
    to_status   TEXT NOT NULL,
    reason      TEXT,
    actor       TEXT CHECK (actor IN ('saga', 'owner', 'admin')),
    at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (order_id, version),
    FOREIGN KEY (from_status, to_status) REFERENCES legal_moves (from_status, to_status),
    CONSTRAINT starts_pending CHECK ((version = 1) = (from_status IS NULL) AND (version = 1) = (actor IS NULL) AND (version > 1 OR to_status = 'PENDING'))
);

CREATE TABLE outbox (
    position     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     UUID NOT NULL UNIQUE,
    order_id     UUID NOT NULL,
    version      BIGINT NOT NULL,
    kind         TEXT NOT NULL,
    payload      TEXT NOT NULL,
    trace_parent TEXT,
    created_at   TIMESTAMPTZ NOT NULL,
    published_at TIMESTAMPTZ,
    UNIQUE (order_id, version),
    FOREIGN KEY (order_id, version) REFERENCES order_history (order_id, version)
);
CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- At most one row: events from before this time may have been pruned.
CREATE TABLE outbox_horizon (
    only_one      BOOLEAN PRIMARY KEY CHECK (only_one),
    pruned_before TIMESTAMPTZ NOT NULL
);

CREATE TABLE idempotency_keys (
    subject     TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BYTEA NOT NULL CHECK (octet_length(fingerprint) = 32),
    order_id    UUID NOT NULL REFERENCES orders (id),
    answer      BYTEA,
    expires_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (subject, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What a bug must not do to an order, whoever has it.
CREATE FUNCTION guard_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = OLD.status THEN
        IF (NEW.total_minor, NEW.failure_reason, NEW.version, NEW.updated_at)
            IS DISTINCT FROM (OLD.total_minor, OLD.failure_reason, OLD.version, OLD.updated_at) THEN
            RAISE EXCEPTION 'order % changed without a change of status', OLD.id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM legal_moves WHERE from_status = OLD.status AND to_status = NEW.status) OR NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'order % may not go from % to %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.id, NEW.user_id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.created_at) OR NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'order % changed what never changes', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_order BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION guard_order();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER keep_orders BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER keep_history BEFORE UPDATE OR DELETE ON order_history FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER keep_lines BEFORE DELETE ON order_lines FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- Name and price are copied once; nothing else of a line changes.
CREATE TRIGGER keep_line BEFORE UPDATE ON order_lines FOR EACH ROW
    WHEN (OLD.name IS NOT NULL OR (NEW.order_id, NEW.position, NEW.product_id, NEW.quantity) IS DISTINCT FROM (OLD.order_id, OLD.position, OLD.product_id, OLD.quantity))
    EXECUTE FUNCTION refuse_change();
