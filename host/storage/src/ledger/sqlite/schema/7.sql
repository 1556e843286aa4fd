-- Labels of documents.

ALTER TABLE documents ADD COLUMN labels TEXT NOT NULL DEFAULT '[]'; -- JSON
