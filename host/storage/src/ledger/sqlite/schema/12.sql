-- Plain names of tables, columns and indexes. The steps above use these names already: for a file of an earlier version
-- `schema_renames.rs` renames everything that exists before it takes a step.

-- The author of changes by the canary analysis.
UPDATE audit_log SET entry = json_set(entry, '$.by', 'canary-analysis') WHERE json_extract(entry, '$.by') = 'judge';
