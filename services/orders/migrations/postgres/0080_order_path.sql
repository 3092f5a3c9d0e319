-- One statement writes an order with its lines, history and events, so the references between them hold without a check per row.
-- Deletions still keep them: no row is deleted without its order (keep_rows_of_orders), and no order without its rows (below).
ALTER TABLE order_lines DROP CONSTRAINT order_lines_order_id_fkey;
ALTER TABLE outbox DROP CONSTRAINT outbox_order_id_version_fkey;
ALTER TABLE order_history
    DROP CONSTRAINT order_history_order_id_fkey,
    DROP CONSTRAINT order_history_from_status_to_status_fkey,
    -- The rows of legal_moves.
    ADD CONSTRAINT legal_move CHECK (from_status IS NULL OR from_status || ' ' || to_status IN (
        'PENDING PRODUCT_RESERVED', 'PENDING FAILED', 'PENDING CANCELLED',
        'PRODUCT_RESERVED CONFIRMED', 'PRODUCT_RESERVED FAILED', 'PRODUCT_RESERVED CANCELLED',
        'CONFIRMED COMPLETED', 'CONFIRMED CANCELLED', 'CONFIRMED CONFIRMED'
    )) NOT VALID;

CREATE OR REPLACE FUNCTION keep_living_orders() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept UUID;
BEGIN
    SELECT id INTO kept FROM deleted WHERE due_at IS NOT NULL OR status NOT IN ('FAILED', 'COMPLETED', 'CANCELLED') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'order % is not settled, so it is not deleted', kept USING ERRCODE = 'check_violation';
    END IF;
    SELECT id INTO kept FROM deleted
        WHERE EXISTS (SELECT FROM order_lines WHERE order_id = id) OR EXISTS (SELECT FROM order_history WHERE order_id = id)
            OR EXISTS (SELECT FROM outbox WHERE order_id = id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'order % is deleted only with its rows', kept USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
