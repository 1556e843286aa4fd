-- What tenants use of language models.
ALTER TABLE usage ADD COLUMN llm_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN llm_prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN llm_answer_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN llm_cost_micros INTEGER NOT NULL DEFAULT 0;
