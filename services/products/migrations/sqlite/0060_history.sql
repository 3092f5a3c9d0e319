-- Changes of the name, description, price, category and activity of each product: the latest 50. The triggers record those of
-- every program, also of the previous release. A program of this release then adds the actor, in the same transaction.
-- A product from before has the changes that it gets from now on.
CREATE TABLE product_changes (
    product_id BLOB    NOT NULL,
    version    INTEGER NOT NULL, -- of the product after the change
    changes    TEXT    NOT NULL CHECK (json_valid(changes)), -- the changed fields, without the texts of the description
    actor      TEXT, -- NULL: unknown
    created_at INTEGER NOT NULL,
    PRIMARY KEY (product_id, version)
) STRICT, WITHOUT ROWID;

-- The patch leaves out the members that are null: unchanged fields.
CREATE TRIGGER changes_of_new AFTER INSERT ON products BEGIN
    INSERT OR REPLACE INTO product_changes (product_id, version, created_at, changes)
        SELECT NEW.id, NEW.version, NEW.updated_at, json_patch('{}', json_object(
            'name', json_object('to', NEW.name),
            'description', json(CASE WHEN NEW.description <> '' THEN 'true' END),
            'priceMinor', json_object('to', NEW.price_minor),
            'category', json_object('to', NEW.category),
            'isActive', json_object('to', json(iif(NEW.is_active, 'true', 'false')))));
END;

CREATE TRIGGER changes_of_changed AFTER UPDATE OF name, description, price_minor, category, is_active ON products
WHEN NEW.name IS NOT OLD.name OR NEW.description IS NOT OLD.description OR NEW.price_minor IS NOT OLD.price_minor
    OR NEW.category IS NOT OLD.category OR NEW.is_active IS NOT OLD.is_active
BEGIN
    INSERT OR REPLACE INTO product_changes (product_id, version, created_at, changes)
        SELECT NEW.id, NEW.version, NEW.updated_at, json_patch('{}', json_object(
            'name', CASE WHEN NEW.name IS NOT OLD.name THEN json_object('from', OLD.name, 'to', NEW.name) END,
            'description', json(CASE WHEN NEW.description IS NOT OLD.description THEN 'true' END),
            'priceMinor', CASE WHEN NEW.price_minor IS NOT OLD.price_minor
                THEN json_object('from', OLD.price_minor, 'to', NEW.price_minor) END,
            'category', CASE WHEN NEW.category IS NOT OLD.category THEN json_object('from', OLD.category, 'to', NEW.category) END,
            'isActive', CASE WHEN NEW.is_active IS NOT OLD.is_active THEN json_object(
                'from', json(iif(OLD.is_active, 'true', 'false')), 'to', json(iif(NEW.is_active, 'true', 'false'))) END));
    DELETE FROM product_changes WHERE product_id = NEW.id AND version <=
        (SELECT version FROM product_changes WHERE product_id = NEW.id ORDER BY version DESC LIMIT 1 OFFSET 50);
END;

CREATE TRIGGER changes_of_removed AFTER DELETE ON products BEGIN
    DELETE FROM product_changes WHERE product_id = OLD.id;
END;
