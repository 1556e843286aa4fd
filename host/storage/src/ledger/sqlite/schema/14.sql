-- Names that say what the rows are.
ALTER TABLE audit_log RENAME TO pipeline_audit_log;
ALTER TABLE policy_state RENAME TO component_state;
ALTER TABLE shadow_runs RENAME TO shadow_reports;
ALTER TABLE stored_paths RENAME TO stored_path_sizes;
ALTER TABLE document_removals RENAME TO unfinished_document_removals;
