-- Settled orders (failed, completed or cancelled, with nothing left to do) are deleted after their retention, with their lines,
-- history and events. The triggers still protect every other order, and the rows of an order that stays.
-- Blocks new orders while it is built: for a large table, an operator can create it before the rollout, with CREATE INDEX
-- CONCURRENTLY and this name.
CREATE INDEX IF NOT EXISTS orders_settled ON orders (status, updated_at, id) WHERE due_at IS NULL AND status IN ('FAILED', 'COMPLETED', 'CANCELLED');

-- A key expires a day after its order was created, and an order is settled for a day at least when it is deleted. Without an
-- index on order_id, the constraint would read all keys for each deleted order.
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_order_id_fkey;

DROP TRIGGER keep_orders ON orders;
DROP TRIGGER keep_history ON order_history;
DROP TRIGGER keep_lines ON order_lines;
DROP FUNCTION keep_lines();

CREATE FUNCTION keep_living_orders() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    living UUID;
BEGIN
    SELECT id INTO living FROM deleted WHERE due_at IS NOT NULL OR status NOT IN ('FAILED', 'COMPLETED', 'CANCELLED') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'order % is not settled, so it is not deleted', living USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_orders AFTER DELETE ON orders REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT
    EXECUTE FUNCTION keep_living_orders();

-- Fires at the end of the statement: an order that is deleted by the same statement no longer exists then. Lines are also
-- replaced while a revision is pending.
CREATE FUNCTION keep_rows_of_orders() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept UUID;
BEGIN
    SELECT id INTO kept FROM deleted JOIN orders ON id = order_id
        WHERE TG_TABLE_NAME <> 'order_lines' OR orders.revision IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'rows of % are deleted only with their order %', TG_TABLE_NAME, kept USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_history_delete AFTER DELETE ON order_history REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT
    EXECUTE FUNCTION keep_rows_of_orders();
CREATE TRIGGER keep_lines AFTER DELETE ON order_lines REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT
    EXECUTE FUNCTION keep_rows_of_orders();
-- Erasure of a subject replaces it by a pseudonym. That is the only change of a row.
CREATE TRIGGER keep_history_update BEFORE UPDATE ON order_history FOR EACH ROW
    WHEN (NOT starts_with(coalesce(NEW.actor_subject, ''), 'erased:')
        OR (NEW.order_id, NEW.version, NEW.from_status, NEW.to_status, NEW.reason, NEW.actor, NEW.actor_service, NEW.revision, NEW.replaced_lines, NEW.at)
            IS DISTINCT FROM (OLD.order_id, OLD.version, OLD.from_status, OLD.to_status, OLD.reason, OLD.actor, OLD.actor_service, OLD.revision, OLD.replaced_lines, OLD.at))
    EXECUTE FUNCTION refuse_change();

-- Erasure of a subject replaces the owner of its settled orders by a pseudonym. That is the only change of an owner.
CREATE OR REPLACE FUNCTION guard_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A cancellation ends a pending revision. A replica of the previous release does not know the column.
    IF NEW.status = 'CANCELLED' THEN
        NEW.revision := NULL;
    ELSIF NEW.status = 'COMPLETED' AND OLD.revision IS NOT NULL THEN
        RAISE EXCEPTION 'order % has a pending revision', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = OLD.status AND NEW.revision IS NOT DISTINCT FROM OLD.revision THEN
        IF (NEW.total_minor, NEW.failure_reason, NEW.version, NEW.updated_at)
            IS DISTINCT FROM (OLD.total_minor, OLD.failure_reason, OLD.version, OLD.updated_at) THEN
            RAISE EXCEPTION 'order % changed without a change of status or a revision', OLD.id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.status = OLD.status THEN
        IF NEW.version <> OLD.version + 1 OR NEW.failure_reason IS DISTINCT FROM OLD.failure_reason
            OR (NEW.revision IS NOT NULL AND (OLD.revision IS NOT NULL OR NEW.total_minor IS DISTINCT FROM OLD.total_minor)) THEN
            RAISE EXCEPTION 'order % has an illegal revision', OLD.id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.version = OLD.version + 1 THEN
        IF NOT EXISTS (SELECT FROM legal_moves WHERE from_status = OLD.status AND to_status = NEW.status) THEN
            RAISE EXCEPTION 'order % may not go from % to %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.version <> OLD.version + 2 OR NOT EXISTS (
        SELECT FROM legal_moves first JOIN legal_moves second ON second.from_status = first.to_status
        WHERE first.from_status = OLD.status AND second.to_status = NEW.status AND first.from_status <> first.to_status
    ) THEN
        RAISE EXCEPTION 'order % may not go from % to % in one or two steps', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    -- A worker of the previous release does not know the maximum. One that does fails the order.
    IF OLD.status = 'PENDING' AND NEW.status IN ('PRODUCT_RESERVED', 'CONFIRMED') AND NEW.total_minor > NEW.max_total_minor THEN
        RAISE EXCEPTION 'order % exceeds its maximum total', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.created_at) OR NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'order % changed what never changes', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION guard_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT starts_with(NEW.user_id, 'erased:') OR OLD.due_at IS NOT NULL OR OLD.status NOT IN ('FAILED', 'COMPLETED', 'CANCELLED')
        OR EXISTS (SELECT FROM fulfilments WHERE order_id = OLD.id) THEN
        RAISE EXCEPTION 'order % changed its owner', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_owner BEFORE UPDATE ON orders FOR EACH ROW WHEN (NEW.user_id IS DISTINCT FROM OLD.user_id)
    EXECUTE FUNCTION guard_owner();
