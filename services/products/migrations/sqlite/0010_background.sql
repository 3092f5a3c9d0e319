-- Where the holder of the lease publishes. An outbox that belongs to a broker is not drained by a replica without one.
ALTER TABLE relay ADD COLUMN destination TEXT NOT NULL DEFAULT 'in_process';

-- At most one row: readiness writes it, because a store that cannot be written is not ready.
CREATE TABLE write_probe (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    at       INTEGER NOT NULL
) STRICT;

-- Reservations that cannot be read. The sweeper leaves them alone until an operator has repaired and released them.
CREATE TABLE quarantined_reservations (
    reservation_id BLOB NOT NULL PRIMARY KEY,
    reason         TEXT NOT NULL,
    since          INTEGER NOT NULL
) STRICT;
