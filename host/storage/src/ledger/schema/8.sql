-- What jobs asked of collection and labels of documents.

ALTER TABLE documents ADD COLUMN requested TEXT NOT NULL DEFAULT '{}'; -- JSON
