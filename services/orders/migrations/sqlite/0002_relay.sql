-- What the broker says of an event: so often refused, it is dead, until somebody brings it back.
ALTER TABLE outbox ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0 CHECK (refusals >= 0);
ALTER TABLE outbox ADD COLUMN last_error TEXT;
ALTER TABLE outbox ADD COLUMN dead_at INTEGER CHECK (dead_at IS NULL OR published_at IS NULL);
DROP INDEX outbox_unpublished;
CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL AND dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (position) WHERE dead_at IS NOT NULL;

-- At most one row: who publishes events, and until when nobody else does.
CREATE TABLE outbox_relay (
    only_one     INTEGER PRIMARY KEY CHECK (only_one = 1),
    relay        BLOB NOT NULL CHECK (length(relay) = 16),
    leased_until INTEGER NOT NULL
) STRICT;
