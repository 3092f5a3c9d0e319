-- Search text with Unicode case folding and normalization, computed by the program: NULL until it is. `folded` is that of the
-- previous release, whose programs search in it.
ALTER TABLE products ADD COLUMN search_text TEXT;
CREATE INDEX products_without_search_text ON products (id) WHERE search_text IS NULL;

-- Every substring of three characters, with its products. Two newlines end each text, so that its last two characters
-- begin a substring, too. Ids of their own: the row ids of products may change with VACUUM.
CREATE TABLE search_ids (
    id         INTEGER PRIMARY KEY,
    product_id BLOB NOT NULL UNIQUE
) STRICT;
CREATE VIRTUAL TABLE search USING fts5 (text, content = '', contentless_delete = 1, tokenize = 'trigram case_sensitive 1');
CREATE VIRTUAL TABLE search_terms USING fts5vocab (search, row);

INSERT INTO search_ids (product_id) SELECT id FROM products;
INSERT INTO search (rowid, text)
    SELECT search_ids.id, folded || char(10, 10) FROM products JOIN search_ids ON product_id = products.id;

CREATE TRIGGER search_of_new AFTER INSERT ON products BEGIN
    INSERT INTO search_ids (product_id) VALUES (NEW.id);
    INSERT INTO search (rowid, text)
        SELECT id, coalesce(NEW.search_text, NEW.folded) || char(10, 10) FROM search_ids WHERE product_id = NEW.id;
END;

-- A program of the previous release changes `folded` only: the search text is then outdated.
CREATE TRIGGER search_of_changed AFTER UPDATE OF folded, search_text ON products
WHEN NEW.folded IS NOT OLD.folded OR NEW.search_text IS NOT OLD.search_text
BEGIN
    UPDATE products SET search_text = NULL
        WHERE id = NEW.id AND NEW.folded IS NOT OLD.folded AND NEW.search_text IS OLD.search_text;
    INSERT OR REPLACE INTO search (rowid, text)
        SELECT search_ids.id, coalesce(products.search_text, products.folded) || char(10, 10)
        FROM search_ids JOIN products ON products.id = product_id WHERE product_id = NEW.id;
END;

CREATE TRIGGER search_of_removed AFTER DELETE ON products BEGIN
    DELETE FROM search WHERE rowid = (SELECT id FROM search_ids WHERE product_id = OLD.id);
    DELETE FROM search_ids WHERE product_id = OLD.id;
END;
