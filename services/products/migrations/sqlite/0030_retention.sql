-- Time of the last change of a reservation that owns no units any more. NULL for one that was settled by a program of the
-- previous release, or that never owned units: its expiry counts.
ALTER TABLE reservations ADD COLUMN settled_at INTEGER;
CREATE INDEX reservations_settled ON reservations (coalesce(settled_at, expires_at)) WHERE state IN ('REFUSED', 'RELEASED', 'EXPIRED');
