-- Where the holder of the lease publishes. An outbox that belongs to a broker is not drained by a replica without one.
ALTER TABLE outbox_relay ADD COLUMN destination TEXT NOT NULL DEFAULT 'in_process';

-- At most one row: readiness writes it, because a store that cannot be written is not ready.
CREATE TABLE write_probe (
    only_one BOOLEAN PRIMARY KEY CHECK (only_one),
    at       TIMESTAMPTZ NOT NULL
);

-- Orders that cannot be read. No worker claims them until an operator has repaired and released them.
CREATE TABLE quarantined_orders (
    order_id UUID PRIMARY KEY,
    reason   TEXT NOT NULL,
    since    TIMESTAMPTZ NOT NULL
);
