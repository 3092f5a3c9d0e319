-- Two legal moves may be written in one update, with both rows in the history.
DROP TRIGGER guard_order;
CREATE TRIGGER guard_order BEFORE UPDATE ON orders BEGIN
    SELECT RAISE(ABORT, 'an order changed without a change of status')
        WHERE NEW.status = OLD.status
        AND (NEW.total_minor IS NOT OLD.total_minor OR NEW.failure_reason IS NOT OLD.failure_reason OR NEW.version <> OLD.version OR NEW.updated_at <> OLD.updated_at);
    SELECT RAISE(ABORT, 'an order made an illegal move')
        WHERE NEW.status <> OLD.status
        AND NOT (NEW.version = OLD.version + 1 AND EXISTS (SELECT 1 FROM legal_moves WHERE from_status = OLD.status AND to_status = NEW.status))
        AND NOT (NEW.version = OLD.version + 2 AND EXISTS (
            SELECT 1 FROM legal_moves AS first JOIN legal_moves AS second ON second.from_status = first.to_status
            WHERE first.from_status = OLD.status AND second.to_status = NEW.status
        ));
    SELECT RAISE(ABORT, 'an order changed what never changes')
        WHERE NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR NEW.created_at <> OLD.created_at OR NEW.fence < OLD.fence;
END;
