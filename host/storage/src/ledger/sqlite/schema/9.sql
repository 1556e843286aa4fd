-- Tenants' use of language models.
ALTER TABLE daily_usage ADD COLUMN llm_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN llm_prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN llm_answer_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN llm_cost_micros INTEGER NOT NULL DEFAULT 0;
