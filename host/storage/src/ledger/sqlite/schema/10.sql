-- An index in the order in which documents are listed.

CREATE INDEX documents_in_order ON documents (tenant, created_millis, id);
DROP INDEX documents_by_age;
