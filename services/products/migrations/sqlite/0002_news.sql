-- Products that changed, in the step that changed them, until others were told. A product that was removed has no later version.
CREATE TABLE news (
    product_id BLOB    NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL,
    since      INTEGER NOT NULL
) STRICT;
CREATE INDEX news_by_age ON news (since);

CREATE TRIGGER news_of_new AFTER INSERT ON products BEGIN
    INSERT INTO news (product_id, version, since) VALUES (NEW.id, NEW.version, NEW.updated_at)
        ON CONFLICT (product_id) DO UPDATE SET version = excluded.version;
END;
CREATE TRIGGER news_of_changed AFTER UPDATE OF version ON products BEGIN
    INSERT INTO news (product_id, version, since) VALUES (NEW.id, NEW.version, NEW.updated_at)
        ON CONFLICT (product_id) DO UPDATE SET version = excluded.version;
END;
CREATE TRIGGER news_of_removed AFTER DELETE ON products BEGIN
    INSERT INTO news (product_id, version, since) VALUES (OLD.id, 9223372036854775807, OLD.updated_at)
        ON CONFLICT (product_id) DO UPDATE SET version = excluded.version;
END;

-- At most one row: who tells the news, and until when nobody else does.
CREATE TABLE relay (
    only_one     INTEGER PRIMARY KEY CHECK (only_one = 1),
    relay        BLOB    NOT NULL CHECK (length(relay) = 16),
    leased_until INTEGER NOT NULL
) STRICT;
