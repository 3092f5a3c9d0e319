-- What the broker says of an event: so often refused, it is dead, until somebody brings it back.
ALTER TABLE outbox
    ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0 CHECK (refusals >= 0),
    ADD COLUMN last_error TEXT,
    ADD COLUMN dead_at TIMESTAMPTZ,
    ADD CONSTRAINT dead_or_published CHECK (dead_at IS NULL OR published_at IS NULL);
DROP INDEX outbox_unpublished;
CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL AND dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (position) WHERE dead_at IS NOT NULL;

-- At most one row: who publishes events, and until when nobody else does.
CREATE TABLE outbox_relay (
    only_one     BOOLEAN PRIMARY KEY CHECK (only_one),
    relay        UUID NOT NULL,
    leased_until TIMESTAMPTZ NOT NULL
);
