-- A fulfilled reservation: its units have left the stock for good. Its state is RELEASED, which a
-- program of the previous release knows as the end of a reservation that owns no units.
ALTER TABLE reservations ADD COLUMN fulfilled_at INTEGER CHECK (fulfilled_at IS NULL OR state = 'RELEASED');
