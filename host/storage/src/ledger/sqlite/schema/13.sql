-- The bytes of each upload, each component and the blobs of each document, by their path in the data folder. `is_changing` is true while
-- the files may differ from `bytes`. After a crash the next start measures these paths.
CREATE TABLE stored_paths (
    tenant      TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    bytes       INTEGER NOT NULL,
    is_changing INTEGER NOT NULL,
    PRIMARY KEY (tenant, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX stored_paths_changing ON stored_paths (path) WHERE is_changing;

-- Their sum for each tenant.
DROP TABLE storage_usage;
CREATE TABLE storage_usage (
    tenant TEXT    NOT NULL PRIMARY KEY,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER stored_path_inserted AFTER INSERT ON stored_paths BEGIN
    INSERT INTO storage_usage (tenant, bytes) VALUES (new.tenant, new.bytes)
    ON CONFLICT DO UPDATE SET bytes = bytes + new.bytes;
END;

CREATE TRIGGER stored_path_updated AFTER UPDATE OF bytes ON stored_paths BEGIN
    UPDATE storage_usage SET bytes = bytes + new.bytes - old.bytes WHERE tenant = new.tenant;
END;

CREATE TRIGGER stored_path_deleted AFTER DELETE ON stored_paths BEGIN
    UPDATE storage_usage SET bytes = bytes - old.bytes WHERE tenant = old.tenant;
END;
