-- Revision of the lines of a confirmed order. The new lines are JSON while the revision is pending: its outcome at products is
-- not known yet.
ALTER TABLE orders ADD COLUMN revision TEXT;
ALTER TABLE orders DROP CONSTRAINT due_while_unfinished;
ALTER TABLE orders ADD CONSTRAINT due_while_unfinished
    CHECK ((due_at IS NOT NULL) = (release_pending OR revision IS NOT NULL OR status IN ('PENDING', 'PRODUCT_RESERVED'))) NOT VALID;
ALTER TABLE orders ADD CONSTRAINT revised_while_confirmed CHECK (revision IS NULL OR status = 'CONFIRMED') NOT VALID;

-- A revision keeps the status. Its request and its end are rows of the history, with the lines that it replaced.
INSERT INTO legal_moves (from_status, to_status) VALUES ('CONFIRMED', 'CONFIRMED');
ALTER TABLE order_history ADD COLUMN revision TEXT;
ALTER TABLE order_history ADD COLUMN replaced_lines TEXT;
ALTER TABLE order_history ADD CONSTRAINT replaced_by_a_revision CHECK (replaced_lines IS NULL OR revision IS NOT NULL) NOT VALID;

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
    IF (NEW.id, NEW.user_id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.created_at) OR NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'order % changed what never changes', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

-- Lines are replaced while a revision is pending.
CREATE FUNCTION keep_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM orders WHERE id = OLD.order_id AND revision IS NOT NULL) THEN
        RAISE EXCEPTION 'lines of order % are deleted by a revision only', OLD.order_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN OLD;
END $$;
DROP TRIGGER keep_lines ON order_lines;
CREATE TRIGGER keep_lines BEFORE DELETE ON order_lines FOR EACH ROW EXECUTE FUNCTION keep_lines();
