-- The collection and labels that a job requested for its documents.

ALTER TABLE documents ADD COLUMN requested_placement TEXT NOT NULL DEFAULT '{}'; -- JSON
