-- Two legal moves may be written in one update, with both rows in the history.
CREATE OR REPLACE FUNCTION guard_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = OLD.status THEN
        IF (NEW.total_minor, NEW.failure_reason, NEW.version, NEW.updated_at)
            IS DISTINCT FROM (OLD.total_minor, OLD.failure_reason, OLD.version, OLD.updated_at) THEN
            RAISE EXCEPTION 'order % changed without a change of status', OLD.id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.version = OLD.version + 1 THEN
        IF NOT EXISTS (SELECT FROM legal_moves WHERE from_status = OLD.status AND to_status = NEW.status) THEN
            RAISE EXCEPTION 'order % may not go from % to %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.version <> OLD.version + 2 OR NOT EXISTS (
        SELECT FROM legal_moves first JOIN legal_moves second ON second.from_status = first.to_status
        WHERE first.from_status = OLD.status AND second.to_status = NEW.status
    ) THEN
        RAISE EXCEPTION 'order % may not go from % to % in one or two steps', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.id, NEW.user_id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.created_at) OR NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'order % changed what never changes', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
