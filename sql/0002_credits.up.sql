-- Prepaid balances and spending limits, daily sums, answers kept for Idempotency-Key.

-- Nanocredits, at most 4 * 10^9 credits. The balance: NULL = not prepaid. The limits: NULL = none;
-- of UTC days, weeks from Monday, calendar months.
ALTER TABLE api_keys ADD COLUMN balance INTEGER
    CHECK (balance BETWEEN -4000000000000000000 AND 4000000000000000000);
ALTER TABLE api_keys ADD COLUMN spend_day INTEGER
    CHECK (spend_day BETWEEN 1 AND 4000000000000000000);
ALTER TABLE api_keys ADD COLUMN spend_week INTEGER
    CHECK (spend_week BETWEEN 1 AND 4000000000000000000);
ALTER TABLE api_keys ADD COLUMN spend_month INTEGER
    CHECK (spend_month BETWEEN 1 AND 4000000000000000000);

-- Every change of a balance, so that a balance is the sum of its key's amounts. What requests cost
-- is one row per key and transaction.
CREATE TABLE credit_ledger (
    id           INTEGER PRIMARY KEY,
    api_key_id   TEXT NOT NULL REFERENCES api_keys (id),
    kind         TEXT NOT NULL CHECK (kind IN ('add', 'usage')),
    amount       INTEGER NOT NULL, -- nanocredits, negative = spent
    balance      INTEGER NOT NULL, -- after it
    requests     INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    operation_id TEXT UNIQUE,      -- the client's, so that a repeated order counts once
    note         TEXT
) STRICT;

CREATE INDEX credit_ledger_by_key ON credit_ledger (api_key_id, id);

-- Who pays for what an attempt used: 0 nobody (nothing was used), 1 the key, 2 the gateway.
ALTER TABLE usage_attempts ADD COLUMN payer INTEGER NOT NULL DEFAULT 0;
UPDATE usage_attempts SET payer = 1
 WHERE number = (SELECT max(a.number) FROM usage_attempts a WHERE a.usage_id = usage_attempts.usage_id)
   AND (SELECT source FROM usage WHERE id = usage_id) <> 0;

-- Sums of usage_hourly, kept in the same transaction.
CREATE TABLE usage_daily (
    day           INTEGER NOT NULL, -- its first millisecond, UTC
    api_key_id    TEXT NOT NULL,
    model         TEXT NOT NULL,
    requests      INTEGER NOT NULL,
    errors        INTEGER NOT NULL,
    tokens_input  INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_output INTEGER NOT NULL,
    cost          INTEGER NOT NULL,
    PRIMARY KEY (day, api_key_id, model)
) STRICT, WITHOUT ROWID;

INSERT INTO usage_daily
SELECT hour - hour % 86400000, api_key_id, model, sum(requests), sum(errors), sum(tokens_input),
       sum(tokens_cached), sum(tokens_output), sum(cost)
  FROM usage_hourly GROUP BY 1, 2, 3;

-- The answers of requests that brought an Idempotency-Key.
CREATE TABLE idempotency (
    key_digest     BLOB PRIMARY KEY CHECK (length(key_digest) = 16),     -- of API key and header
    request_digest BLOB NOT NULL CHECK (length(request_digest) = 16),    -- of path and body
    usage_id       BLOB NOT NULL CHECK (length(usage_id) = 16),
    created_at     INTEGER NOT NULL,
    status         INTEGER,  -- of the stored answer; NULL = none is stored
    content_type   TEXT,
    answer         BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_age ON idempotency (created_at);

DROP VIEW api_keys_view;
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
       tier, models, rpm, rpd, tpm, tpd, parallel,
       iif(balance IS NULL, NULL,
           rtrim(rtrim(printf('%s%d.%09d', iif(balance < 0, '-', ''), abs(balance) / 1000000000,
                              abs(balance) % 1000000000), '0'), '.')) AS balance,
       iif(spend_day IS NULL, NULL,
           rtrim(rtrim(printf('%d.%09d', spend_day / 1000000000, spend_day % 1000000000), '0'),
                 '.')) AS spend_day,
       iif(spend_week IS NULL, NULL,
           rtrim(rtrim(printf('%d.%09d', spend_week / 1000000000, spend_week % 1000000000), '0'),
                 '.')) AS spend_week,
       iif(spend_month IS NULL, NULL,
           rtrim(rtrim(printf('%d.%09d', spend_month / 1000000000, spend_month % 1000000000), '0'),
                 '.')) AS spend_month
  FROM api_keys;

CREATE VIEW credit_ledger_view AS
SELECT c.id, c.api_key_id, k.name AS key_name, c.kind,
       rtrim(rtrim(printf('%s%d.%09d', iif(c.amount < 0, '-', ''), abs(c.amount) / 1000000000,
                          abs(c.amount) % 1000000000), '0'), '.') AS amount,
       rtrim(rtrim(printf('%s%d.%09d', iif(c.balance < 0, '-', ''), abs(c.balance) / 1000000000,
                          abs(c.balance) % 1000000000), '0'), '.') AS balance,
       c.requests,
       strftime('%Y-%m-%dT%H:%M:%S', c.created_at / 1000, 'unixepoch')
           || printf('.%03dZ', c.created_at % 1000) AS created_at,
       c.operation_id, c.note
  FROM credit_ledger c LEFT JOIN api_keys k ON k.id = c.api_key_id;

CREATE VIEW usage_daily_view AS
SELECT strftime('%Y-%m-%d', day / 1000, 'unixepoch') AS day, api_key_id, model,
       requests, errors, tokens_input, tokens_cached, tokens_output,
       rtrim(rtrim(printf('%d.%09d', cost / 1000000000, cost % 1000000000), '0'), '.') AS cost
  FROM usage_daily;

DROP VIEW usage_attempts_view;
CREATE VIEW usage_attempts_view AS
SELECT lower(hex(usage_id)) AS usage_id, number, provider, model, status, error,
       strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000, 'unixepoch')
           || printf('.%03dZ', started_at % 1000) AS started_at,
       duration_ms, tokens_input, tokens_cached, tokens_output,
       CASE payer WHEN 0 THEN 'nobody' WHEN 1 THEN 'key' WHEN 2 THEN 'gateway' END AS payer
  FROM usage_attempts;
