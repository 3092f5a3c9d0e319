-- The last revision of a reservation, 0 if there was none, and why it was refused, if it was.
ALTER TABLE reservations ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reservations ADD COLUMN revision_refusal TEXT;
ALTER TABLE reservations ADD COLUMN revision_refused_product BLOB;
