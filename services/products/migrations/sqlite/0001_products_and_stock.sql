-- Times are milliseconds since 1970, ids 16 bytes.

CREATE TABLE products (
    id          BLOB    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    folded      TEXT    NOT NULL, -- name and description in lower case, to search in
    price_minor INTEGER NOT NULL CHECK (price_minor >= 0),
    quantity    INTEGER NOT NULL CHECK (quantity >= 0),
    taken       INTEGER NOT NULL CHECK (taken >= 0), -- units in open reservations
    supply      INTEGER NOT NULL, -- opening stock plus all adjustments: kept apart, for the audit
    category    TEXT    NOT NULL,
    is_active   INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    version     INTEGER NOT NULL CHECK (version >= 1),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- One index for each order, with and without a category; is_active last, so that it is filtered within the index.
CREATE INDEX products_by_created ON products (created_at, id, is_active);
CREATE INDEX products_by_price ON products (price_minor, id, is_active);
CREATE INDEX products_by_name ON products (name, id, is_active);
CREATE INDEX products_by_category_and_created ON products (category, created_at, id, is_active);
CREATE INDEX products_by_category_and_price ON products (category, price_minor, id, is_active);
CREATE INDEX products_by_category_and_name ON products (category, name, id, is_active);

CREATE TABLE reservations (
    id              BLOB    NOT NULL PRIMARY KEY,
    state           TEXT    NOT NULL CHECK (state IN ('HELD', 'CONFIRMED', 'RELEASED', 'EXPIRED', 'REFUSED')),
    refusal         TEXT,
    refused_product BLOB,
    expires_at      INTEGER NOT NULL,
    CHECK ((state = 'REFUSED') = (refusal IS NOT NULL AND refused_product IS NOT NULL))
) STRICT;

CREATE INDEX reservations_held ON reservations (expires_at) WHERE state = 'HELD';
CREATE INDEX reservations_open ON reservations (id) WHERE state IN ('HELD', 'CONFIRMED');

CREATE TABLE reservation_lines (
    reservation_id   BLOB    NOT NULL REFERENCES reservations (id),
    product_id       BLOB    NOT NULL, -- no reference: a settled reservation outlives its products
    quantity         INTEGER NOT NULL CHECK (quantity > 0),
    name             TEXT    NOT NULL,
    unit_price_minor INTEGER NOT NULL,
    PRIMARY KEY (reservation_id, product_id)
) STRICT, WITHOUT ROWID;

-- A settled reservation never moves again.
CREATE TRIGGER reservations_end BEFORE UPDATE OF state ON reservations
WHEN NOT ((OLD.state = 'HELD' AND NEW.state IN ('CONFIRMED', 'RELEASED', 'EXPIRED'))
       OR (OLD.state = 'CONFIRMED' AND NEW.state = 'RELEASED'))
BEGIN
    SELECT RAISE(ABORT, 'illegal move of a reservation');
END;

-- The answer to a create: the product as it was then.
CREATE TABLE idempotency_keys (
    subject     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL,
    product_id  BLOB    NOT NULL,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    price_minor INTEGER NOT NULL,
    quantity    INTEGER NOT NULL,
    category    TEXT    NOT NULL,
    is_active   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
