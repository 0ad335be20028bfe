DROP VIEW usage_daily_view;
DROP VIEW credit_ledger_view;
DROP VIEW api_keys_view;
DROP VIEW usage_attempts_view;
DROP TABLE idempotency;
DROP TABLE usage_daily;
DROP TABLE credit_ledger;
ALTER TABLE usage_attempts DROP COLUMN payer;
ALTER TABLE api_keys DROP COLUMN spend_month;
ALTER TABLE api_keys DROP COLUMN spend_week;
ALTER TABLE api_keys DROP COLUMN spend_day;
ALTER TABLE api_keys DROP COLUMN balance;

CREATE VIEW api_keys_view AS
SELECT id, name,
       strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000, 'unixepoch')
           || printf('.%03dZ', created_at % 1000) AS created_at,
       strftime('%Y-%m-%dT%H:%M:%S', expires_at / 1000, 'unixepoch')
           || printf('.%03dZ', expires_at % 1000) AS expires_at,
       strftime('%Y-%m-%dT%H:%M:%S', last_used_at / 1000, 'unixepoch')
           || printf('.%03dZ', last_used_at % 1000) AS last_used_at,
       strftime('%Y-%m-%dT%H:%M:%S', revoked_at / 1000, 'unixepoch')
           || printf('.%03dZ', revoked_at % 1000) AS revoked_at,
       tier, models, rpm, rpd, tpm, tpd, parallel
  FROM api_keys;

CREATE VIEW usage_attempts_view AS
SELECT lower(hex(usage_id)) AS usage_id, number, provider, model, status, error,
       strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000, 'unixepoch')
           || printf('.%03dZ', started_at % 1000) AS started_at,
       duration_ms, tokens_input, tokens_cached, tokens_output
  FROM usage_attempts;
