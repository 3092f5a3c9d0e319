-- Revision of the lines of a confirmed order. The new lines are JSON while the revision is pending: its outcome at products is
-- not known yet. SQLite cannot alter a check; its manual (lang_altertable, section 7) changes the text of the schema where the
-- format of the rows stays the same.
ALTER TABLE orders ADD COLUMN revision TEXT CHECK (revision IS NULL OR status = 'CONFIRMED');
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
    SET sql = replace(sql, '(release_pending OR status IN (''PENDING'', ''PRODUCT_RESERVED''))', '(release_pending OR revision IS NOT NULL OR status IN (''PENDING'', ''PRODUCT_RESERVED''))')
    WHERE type = 'table' AND name = 'orders';
PRAGMA writable_schema = RESET;

-- A revision keeps the status. Its request and its end are rows of the history, with the lines that it replaced.
INSERT INTO legal_moves (from_status, to_status) VALUES ('CONFIRMED', 'CONFIRMED');
ALTER TABLE order_history ADD COLUMN revision TEXT;
ALTER TABLE order_history ADD COLUMN replaced_lines TEXT CHECK (replaced_lines IS NULL OR revision IS NOT NULL);

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
        WHERE NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR NEW.created_at <> OLD.created_at OR NEW.fence < OLD.fence;
END;

-- Lines are replaced while a revision is pending.
DROP TRIGGER keep_lines;
CREATE TRIGGER keep_lines BEFORE DELETE ON order_lines
    WHEN NOT EXISTS (SELECT 1 FROM orders WHERE id = OLD.order_id AND revision IS NOT NULL)
BEGIN SELECT RAISE(ABORT, 'lines are deleted by a revision only'); END;
