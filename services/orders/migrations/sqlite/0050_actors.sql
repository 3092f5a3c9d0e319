-- The user and the calling service of each change. NULL if unknown: rows of the previous release, and the user of a saga.
ALTER TABLE order_history ADD COLUMN actor_subject TEXT;
ALTER TABLE order_history ADD COLUMN actor_service TEXT;
-- The service that removed an order for deleted_by.
ALTER TABLE orders ADD COLUMN deleted_by_service TEXT;
