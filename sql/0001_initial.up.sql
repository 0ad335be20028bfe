-- The ledger: who may call, what each request used, what it cost.
-- Amounts are INTEGER nanocredits (10^9 = one credit), times INTEGER milliseconds since 1970 UTC;
-- the views at the end show them as decimals and RFC 3339 text.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY CHECK (length(id) = 20), -- 'key_' and 16 hex digits, ordered by time
    key_hash     TEXT NOT NULL UNIQUE,                     -- hex of HMAC-SHA-256 under key.secret
    name         TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,                                  -- NULL = never
    last_used_at INTEGER,
    revoked_at   INTEGER,
    tier         TEXT,
    models       TEXT NOT NULL DEFAULT '[]',               -- JSON array of model ids, empty = all
    rpm          INTEGER,                                  -- limits: NULL = the tier's, 0 = none
    rpd          INTEGER,
    tpm          INTEGER,
    tpd          INTEGER,
    parallel     INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked_at IS NULL;

-- One row per request. The id is ordered by time, so rows are appended at the end of the tree.
-- The upper bounds are far above any real request; they keep sums inside 64 bits.
CREATE TABLE usage (
    id                 BLOB PRIMARY KEY CHECK (length(id) = 16),
    api_key_id         TEXT NOT NULL REFERENCES api_keys (id),
    provider           TEXT NOT NULL, -- of the last attempt, '' = none was made
    model              TEXT NOT NULL, -- public id
    tokens_input       INTEGER NOT NULL CHECK (tokens_input BETWEEN 0 AND 1000000000000),
    tokens_cached      INTEGER NOT NULL CHECK (tokens_cached BETWEEN 0 AND tokens_input),
    tokens_output      INTEGER NOT NULL CHECK (tokens_output BETWEEN 0 AND 1000000000000),
    cost               INTEGER NOT NULL CHECK (cost BETWEEN 0 AND 1000000000000000),
    created_at         INTEGER NOT NULL CHECK (created_at >= 0),
    outcome            INTEGER NOT NULL, -- 0 ok, 1 error, 2 cancelled, 3 aborted
    source             INTEGER NOT NULL, -- of the token counts: 0 none, 1 provider, 2 local, 3 partial
    http_status        INTEGER NOT NULL, -- what the client got, 0 = nothing
    error              TEXT,             -- code as in the API's errors
    streamed           INTEGER NOT NULL,
    duration_ms        INTEGER NOT NULL,
    first_byte_ms      INTEGER,          -- NULL = no byte of an answer came
    price_from         INTEGER NOT NULL, -- the price in force: nanocredits per 1,000,000 tokens
    price_input        INTEGER NOT NULL,
    price_cached_input INTEGER NOT NULL,
    price_output       INTEGER NOT NULL,
    price_request      INTEGER NOT NULL  -- nanocredits per request
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_key ON usage (api_key_id, created_at);

-- No foreign key: they are written in the transaction that adds the usage row, and the check would
-- look that row up once more.
CREATE TABLE usage_attempts (
    usage_id      BLOB NOT NULL,
    number        INTEGER NOT NULL, -- 1 = first
    provider      TEXT NOT NULL,
    model         TEXT NOT NULL,    -- as the provider names it
    status        INTEGER,          -- the provider's HTTP status, NULL = none came
    error         TEXT,
    started_at    INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    tokens_input  INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_output INTEGER NOT NULL,
    PRIMARY KEY (usage_id, number)
) STRICT, WITHOUT ROWID;

-- Sums of usage, kept in the transaction that adds the rows. No foreign key: sums outlive keys.
CREATE TABLE usage_hourly (
    hour          INTEGER NOT NULL, -- its first millisecond
    api_key_id    TEXT NOT NULL,
    model         TEXT NOT NULL,
    requests      INTEGER NOT NULL,
    errors        INTEGER NOT NULL,
    tokens_input  INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_output INTEGER NOT NULL,
    cost          INTEGER NOT NULL,
    PRIMARY KEY (hour, api_key_id, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_status (
    id         TEXT PRIMARY KEY,
    provider   TEXT NOT NULL,
    model      TEXT NOT NULL,
    status     TEXT NOT NULL,
    latency    INTEGER, -- milliseconds
    error_rate INTEGER, -- hundredths of a percent
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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

CREATE VIEW usage_view AS
SELECT lower(hex(u.id)) AS id, u.api_key_id, k.name AS key_name, u.provider, u.model,
       u.tokens_input, u.tokens_cached, u.tokens_output,
       rtrim(rtrim(printf('%d.%09d', u.cost / 1000000000, u.cost % 1000000000), '0'), '.') AS cost,
       strftime('%Y-%m-%dT%H:%M:%S', u.created_at / 1000, 'unixepoch')
           || printf('.%03dZ', u.created_at % 1000) AS created_at,
       CASE u.outcome WHEN 0 THEN 'ok' WHEN 1 THEN 'error' WHEN 2 THEN 'cancelled'
                      WHEN 3 THEN 'aborted' END AS outcome,
       CASE u.source WHEN 0 THEN 'none' WHEN 1 THEN 'provider' WHEN 2 THEN 'local'
                     WHEN 3 THEN 'partial' END AS source,
       u.http_status, u.error, u.streamed, u.duration_ms, u.first_byte_ms
  FROM usage u LEFT JOIN api_keys k ON k.id = u.api_key_id;

CREATE VIEW usage_attempts_view AS
SELECT lower(hex(usage_id)) AS usage_id, number, provider, model, status, error,
       strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000, 'unixepoch')
           || printf('.%03dZ', started_at % 1000) AS started_at,
       duration_ms, tokens_input, tokens_cached, tokens_output
  FROM usage_attempts;

CREATE VIEW usage_hourly_view AS
SELECT strftime('%Y-%m-%dT%H:%M:%S.000Z', hour / 1000, 'unixepoch') AS hour, api_key_id, model,
       requests, errors, tokens_input, tokens_cached, tokens_output,
       rtrim(rtrim(printf('%d.%09d', cost / 1000000000, cost % 1000000000), '0'), '.') AS cost
  FROM usage_hourly;

CREATE VIEW provider_status_view AS
SELECT id, provider, model, status, latency,
       CASE WHEN error_rate IS NOT NULL
            THEN printf('%d.%02d', error_rate / 100, error_rate % 100) END AS error_rate,
       strftime('%Y-%m-%dT%H:%M:%S', updated_at / 1000, 'unixepoch')
           || printf('.%03dZ', updated_at % 1000) AS updated_at
  FROM provider_status;
