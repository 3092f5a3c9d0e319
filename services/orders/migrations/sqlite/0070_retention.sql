-- Settled orders (failed, completed or cancelled, with nothing left to do) are deleted after their retention, with their lines,
-- history and events. The triggers still protect every other order, and the rows of an order that stays.
CREATE INDEX orders_settled ON orders (status, updated_at, id) WHERE due_at IS NULL AND status IN ('FAILED', 'COMPLETED', 'CANCELLED');

-- A key expires a day after its order was created, and an order is settled for a day at least when it is deleted. Without an
-- index on order_id, the reference to orders would read all keys for each deleted order: the new table has none.
CREATE TABLE unreferenced_keys (
    subject     TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    order_id    BLOB NOT NULL,
    answer      BLOB,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
INSERT INTO unreferenced_keys (subject, key, fingerprint, order_id, answer, expires_at)
    SELECT subject, key, fingerprint, order_id, answer, expires_at FROM idempotency_keys;
DROP TABLE idempotency_keys;
ALTER TABLE unreferenced_keys RENAME TO idempotency_keys;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

DROP TRIGGER keep_orders;
DROP TRIGGER keep_history_delete;
DROP TRIGGER keep_lines;
CREATE TRIGGER keep_orders BEFORE DELETE ON orders
    WHEN OLD.due_at IS NOT NULL OR OLD.status NOT IN ('FAILED', 'COMPLETED', 'CANCELLED')
BEGIN SELECT RAISE(ABORT, 'an order that is not settled is not deleted'); END;
-- The deletion of an order deletes it before its rows, with deferred foreign keys.
CREATE TRIGGER keep_history_delete BEFORE DELETE ON order_history WHEN EXISTS (SELECT 1 FROM orders WHERE id = OLD.order_id)
BEGIN SELECT RAISE(ABORT, 'history is deleted only with its order'); END;
-- Erasure of a subject replaces it by a pseudonym. That is the only change of a row.
DROP TRIGGER keep_history_update;
CREATE TRIGGER keep_history_update BEFORE UPDATE ON order_history
    WHEN substr(coalesce(NEW.actor_subject, ''), 1, 7) <> 'erased:'
        OR NEW.order_id IS NOT OLD.order_id OR NEW.version IS NOT OLD.version OR NEW.from_status IS NOT OLD.from_status OR NEW.to_status IS NOT OLD.to_status OR NEW.reason IS NOT OLD.reason OR NEW.actor IS NOT OLD.actor OR NEW.actor_service IS NOT OLD.actor_service OR NEW.revision IS NOT OLD.revision OR NEW.replaced_lines IS NOT OLD.replaced_lines OR NEW.at IS NOT OLD.at
BEGIN SELECT RAISE(ABORT, 'history is never changed'); END;
CREATE TRIGGER keep_lines BEFORE DELETE ON order_lines WHEN EXISTS (SELECT 1 FROM orders WHERE id = OLD.order_id AND revision IS NULL)
BEGIN SELECT RAISE(ABORT, 'lines are deleted only with their order or by a revision'); END;

-- Erasure of a subject replaces the owner of its settled orders by a pseudonym. That is the only change of an owner.
DROP TRIGGER guard_order;
CREATE TRIGGER guard_order BEFORE UPDATE ON orders BEGIN
    SELECT RAISE(ABORT, 'an order changed without a change of status or a revision')
        WHERE NEW.status = OLD.status AND NEW.revision IS OLD.revision
        AND (NEW.total_minor IS NOT OLD.total_minor OR NEW.failure_reason IS NOT OLD.failure_reason OR NEW.version <> OLD.version OR NEW.updated_at <> OLD.updated_at);
    SELECT RAISE(ABORT, 'an order has an illegal revision')
        WHERE NEW.status = OLD.status AND NEW.revision IS NOT OLD.revision
        AND (NEW.version <> OLD.version + 1 OR NEW.failure_reason IS NOT OLD.failure_reason
            OR (NEW.revision IS NOT NULL AND (OLD.revision IS NOT NULL OR NEW.total_minor IS NOT OLD.total_minor)));
    SELECT RAISE(ABORT, 'an order made an illegal move')
        WHERE NEW.status <> OLD.status
        AND NOT (NEW.version = OLD.version + 1 AND EXISTS (SELECT 1 FROM legal_moves WHERE from_status = OLD.status AND to_status = NEW.status))
        AND NOT (NEW.version = OLD.version + 2 AND EXISTS (
            SELECT 1 FROM legal_moves AS first JOIN legal_moves AS second ON second.from_status = first.to_status
            WHERE first.from_status = OLD.status AND second.to_status = NEW.status AND first.from_status <> first.to_status
        ));
    SELECT RAISE(ABORT, 'an order with a pending revision was completed')
        WHERE NEW.status = 'COMPLETED' AND OLD.revision IS NOT NULL;
    SELECT RAISE(ABORT, 'an order changed what never changes')
        WHERE NEW.id <> OLD.id OR NEW.created_at <> OLD.created_at OR NEW.fence < OLD.fence;
END;
CREATE TRIGGER guard_owner BEFORE UPDATE ON orders
    WHEN NEW.user_id <> OLD.user_id AND (substr(NEW.user_id, 1, 7) <> 'erased:' OR OLD.due_at IS NOT NULL
        OR OLD.status NOT IN ('FAILED', 'COMPLETED', 'CANCELLED') OR EXISTS (SELECT 1 FROM fulfilments WHERE order_id = OLD.id))
BEGIN SELECT RAISE(ABORT, 'an order changed its owner'); END;
