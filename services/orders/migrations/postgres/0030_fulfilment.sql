-- Completed orders whose reservation products must still fulfil. A trigger fills the queue in the step that completes an
-- order, so that replicas of the previous release fill it, too.
CREATE TABLE fulfilments (
    order_id   UUID PRIMARY KEY REFERENCES orders (id),
    due_at     TIMESTAMPTZ NOT NULL,
    attempts   BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error TEXT
);
CREATE INDEX fulfilments_due ON fulfilments (due_at);

CREATE FUNCTION queue_fulfilment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fulfilments (order_id, due_at) VALUES (NEW.id, NEW.updated_at) ON CONFLICT (order_id) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER queue_fulfilment AFTER UPDATE OF status ON orders FOR EACH ROW
    WHEN (NEW.status = 'COMPLETED' AND OLD.status <> 'COMPLETED') EXECUTE FUNCTION queue_fulfilment();

-- After the trigger, whose creation waits for transactions that complete orders.
INSERT INTO fulfilments (order_id, due_at) SELECT id, now() FROM orders WHERE status = 'COMPLETED';
