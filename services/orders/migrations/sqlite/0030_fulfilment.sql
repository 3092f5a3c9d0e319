-- Completed orders whose reservation products must still fulfil. A trigger fills the queue in the step that completes an
-- order, so that a program of the previous release fills it, too.
CREATE TABLE fulfilments (
    order_id   BLOB NOT NULL PRIMARY KEY REFERENCES orders (id),
    due_at     INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX fulfilments_due ON fulfilments (due_at);

CREATE TRIGGER queue_fulfilment AFTER UPDATE OF status ON orders WHEN NEW.status = 'COMPLETED' AND OLD.status <> 'COMPLETED' BEGIN
    INSERT INTO fulfilments (order_id, due_at) VALUES (NEW.id, NEW.updated_at) ON CONFLICT (order_id) DO NOTHING;
END;

INSERT INTO fulfilments (order_id, due_at) SELECT id, unixepoch() * 1000 FROM orders WHERE status = 'COMPLETED';
