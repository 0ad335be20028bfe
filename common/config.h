/* config.h - the configuration: one JSON file with comments, its options declared once.
 *
 * Each option is one row of a table below. The struct, the checks, the defaults, the environment
 * overrides, -T, the JSON schema and docs/configuration.md all come from the row.
 *
 * Order of precedence: command-line flag, environment (scalars of the first table: "listen.http" is
 * XROUTER_LISTEN_HTTP), file, default. A config is immutable once loaded and counted: a
 * request keeps a reference to the one it began with. */
#ifndef XROUTER_COMMON_CONFIG_H
#define XROUTER_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/money.h"

/* Types: U32 (a count), MS (milliseconds, int64), BYTES (uint64), BOOL, TEXT, PATH (relative to the
 * file), ADDRESS ("host:port", "" = off, port 0 allowed), URL (http or https), SECRET (a
 * reference, resolved when loaded), PRICE (decimal credits -> nanocredits), DATE (RFC 3339 or a
 * plain date -> at_ms).
 * min and max: the range of a number (of a price in credits); of a text the fewest bytes and,
 * unless 0, the most.
 * unit: of a TEXT the only words it may be, joined by |; of a PATH the words that are no path.
 * reload: yes, or no = counts after a restart only. An option whose default is NULL is required. */

/* clang-format off */
/*  type     field                     path                        default            min      max          reload unit       help */
#define CONFIG_OPTIONS(X) \
  X(PATH,    state_dir,                "state_dir",                "var",             1,       0,           no,  "",         "database, key secret, spool") \
  X(PATH,    runtime_dir,              "runtime_dir",              "var/run",         1,       0,           no,  "",         "sockets, locks, pid file; names the instance") \
  X(U32,     workers,                  "workers",                  "0",               0,       128,         no,  "processes", "request workers, 0 = one per CPU") \
  X(ADDRESS, listen_http,              "listen.http",              "127.0.0.1:8080",  0,       0,           no,  "",         "plain HTTP listener, empty = off") \
  X(ADDRESS, listen_https,             "listen.https",             "",                0,       0,           no,  "",         "HTTPS listener, empty = off; needs listen.tls") \
  X(ADDRESS, listen_ops,               "listen.ops",               "127.0.0.1:9464",  0,       0,           no,  "",         "health, readiness and metrics listener, empty = off") \
  X(PATH,    tls_cert,                 "listen.tls.cert",          "",                0,       0,           yes, "",         "certificate chain, PEM") \
  X(PATH,    tls_key,                  "listen.tls.key",           "",                0,       0,           yes, "",         "private key, PEM") \
  X(TEXT,    log_level,                "log.level",                "info",            0,       0,           yes, "debug|info|warn|error", "least severe line of the error log") \
  X(PATH,    log_error_file,           "log.error_file",           "",                0,       0,           no,  "",         "error log, empty = standard error") \
  X(PATH,    log_access_file,          "log.access_file",          "",                0,       0,           no,  "off",      "access log, empty = standard output, \"off\" = none") \
  X(BYTES,   body_bytes,               "limits.body_bytes",        "16777216",        1024,    1073741824,  yes, "bytes",    "largest request body") \
  X(U32,     connections,              "limits.connections",       "4096",            16,      100000,      no,  "connections", "open client connections per worker") \
  X(U32,     address_connections,      "limits.connections_per_address", "0",         0,       100000,      yes, "connections", "open client connections of one address (of IPv6 one /64) per worker, 0 = no limit") \
  X(U32,     wrong_keys,               "limits.wrong_keys_per_minute", "60",          0,       1000000,     yes, "requests", "with a wrong API key that one address may send to one worker; further ones get 429, their connections are closed and the access log is spared, 0 = no limit") \
  X(U32,     in_flight,                "limits.in_flight",         "2048",            1,       65535,       no,  "requests", "requests in flight per worker") \
  X(U32,     keys,                     "limits.keys",              "10000",           16,      1000000,     no,  "keys",     "capacity of the key table") \
  X(U32,     models_max,               "limits.models",            "64",              1,       4096,        no,  "models",   "capacity for models in the statistics") \
  X(U32,     providers_max,            "limits.providers",         "16",              1,       256,         no,  "providers", "capacity for providers") \
  X(BYTES,   outbox_bytes,             "limits.outbox_bytes",      "8388608",         65536,   1073741824,  no,  "bytes",    "usage events a worker can hold before the spool takes them") \
  X(U32,     idempotency_keys,         "limits.idempotency_keys",  "65536",           64,      16777216,    no,  "keys",     "Idempotency-Keys remembered at once") \
  X(MS,      header_ms,                "timeouts.header_ms",       "10000",           10,      600000,      yes, "ms",       "a client's time to send the headers (and to finish a TLS handshake)") \
  X(MS,      body_ms,                  "timeouts.body_ms",         "60000",           10,      3600000,     yes, "ms",       "a client's time to send the body") \
  X(MS,      keepalive_ms,             "timeouts.keepalive_ms",    "75000",           10,      3600000,     yes, "ms",       "an idle client connection is closed after this") \
  X(MS,      write_stall_ms,           "timeouts.write_stall_ms",  "60000",           10,      3600000,     yes, "ms",       "a client that takes no byte for so long is cut") \
  X(MS,      stream_ping_ms,           "timeouts.stream_ping_ms",  "10000",           10,      3600000,     yes, "ms",       "a stream's first comment ping when the provider is silent") \
  X(MS,      stop_timeout_ms,          "timeouts.stop_timeout_ms", "30000",           0,       86400000,    yes, "ms",       "drain time after TERM") \
  X(MS,      watchdog_ms,              "timeouts.watchdog_ms",     "2000",            0,       600000,      yes, "ms",       "a worker silent for so long is replaced, 0 = off") \
  X(MS,      recount_wait_ms,          "timeouts.recount_wait_ms", "2000",            0,       60000,       yes, "ms",       "a request's wait while its key's balance is counted anew") \
  X(U32,     retry_attempts,           "retry.attempts",           "4",               1,       8,           yes, "attempts", "tries of one request at most, all candidates together") \
  X(MS,      retry_backoff_ms,         "retry.backoff_ms",         "200",             1,       60000,       yes, "ms",       "longest wait before the first repeat at the same candidate; doubles with each") \
  X(MS,      retry_backoff_max_ms,     "retry.backoff_max_ms",     "5000",            1,       60000,       yes, "ms",       "longest wait before any repeat") \
  X(U32,     retry_budget_percent,     "retry.budget_percent",     "20",              0,       100,         yes, "percent",  "repeats at the same candidate that requests may cause, so that an outage is not multiplied") \
  X(U32,     breaker_failures,         "breaker.failures",         "5",               1,       1000,        yes, "failures", "in a row: a provider's model is left alone") \
  X(U32,     breaker_requests,         "breaker.requests",         "20",              1,       100000,      yes, "requests", "fewest in the window before their share of failures counts") \
  X(U32,     breaker_error_percent,    "breaker.error_percent",    "50",              1,       100,         yes, "percent",  "share of failures in the window from which on a provider's model is left alone") \
  X(MS,      breaker_window_ms,        "breaker.window_ms",        "10000",           100,     600000,      yes, "ms",       "window of that share") \
  X(MS,      breaker_open_ms,          "breaker.open_ms",          "1000",            10,      600000,      yes, "ms",       "how long it is left alone before one request tries it again") \
  X(U32,     queue_length,             "queue.length",             "64",              0,       256,         yes, "requests", "that wait for a provider at its max_concurrent") \
  X(MS,      queue_wait_ms,            "queue.wait_ms",            "30000",           0,       600000,      yes, "ms",       "longest such wait") \
  X(U32,     gateway_rpm,              "limits.gateway.rpm",       "0",               0,       4294967295,  yes, "requests per minute", "of all keys together; 0 = no limit") \
  X(U32,     gateway_rpd,              "limits.gateway.rpd",       "0",               0,       4294967295,  yes, "requests per day", "of all keys together; 0 = no limit") \
  X(U32,     gateway_tpm,              "limits.gateway.tpm",       "0",               0,       4294967295,  yes, "tokens per minute", "of all keys together; 0 = no limit") \
  X(U32,     gateway_tpd,              "limits.gateway.tpd",       "0",               0,       4294967295,  yes, "tokens per day", "of all keys together; 0 = no limit") \
  X(U32,     gateway_parallel,         "limits.gateway.parallel",  "0",               0,       4294967295,  yes, "requests", "at once, of all keys together; 0 = no limit") \
  X(U32,     targets_max,              "limits.targets",           "256",             1,       4096,        no,  "models",   "capacity for providers' models") \
  X(MS,      commit_ms,                "ledger.commit_ms",         "10",              1,       1000,        yes, "ms",       "longest wait before usage events are committed") \
  X(BYTES,   wal_bytes,                "ledger.wal_bytes",         "268435456",       16777216, 1099511627776, yes, "bytes",  "largest write-ahead log: from here on events wait in the spool until it can be emptied") \
  X(U32,     retention_days,           "ledger.retention_days",    "0",               0,       36500,       yes, "days",     "requests' own rows are deleted after this, 0 = never; sums stay") \
  X(U32,     hourly_retention_days,    "ledger.hourly_retention_days", "0",           0,       36500,       yes, "days",     "sums by the hour are deleted after this, 0 = never; sums by the day stay") \
  X(MS,      status_ms,                "ledger.status_ms",         "5000",            100,     3600000,     yes, "ms",       "how often provider_status and learned token ratios are written") \
  X(MS,      answer_ttl_ms,            "ledger.answer_ttl_ms",     "86400000",        1000,    2592000000,  yes, "ms",       "how long an Idempotency-Key and its answer are remembered") \
  X(BYTES,   answer_bytes,             "ledger.answer_bytes",      "262144",          0,       524288,      yes, "bytes",    "largest answer kept for an Idempotency-Key") \
  X(BYTES,   answers_bytes,            "ledger.answers_bytes",     "268435456",       0,       1099511627776, yes, "bytes",  "all answers kept for Idempotency-Keys; beyond it the oldest are dropped") \
  X(TEXT,    default_model,            "default_model",            "",                0,       95,          yes, "",         "model of requests that name none: an id or an alias; empty = they are refused") \
  X(TEXT,    currency,                 "billing.currency",         "RUB",             1,       16,           yes, "",         "what one credit is")

#define PROVIDER_OPTIONS(X) \
  X(TEXT,    name,                     "name",                     NULL,              1,       95,           yes, "",         "name in models, statistics and logs") \
  X(TEXT,    type,                     "type",                     NULL,              0,       0,           yes, "gigachat|openai|anthropic", "adapter: what its API speaks") \
  X(TEXT,    flavor,                   "flavor",                   "openai",          0,       0,           yes, "openai|deepseek|mistral|groq|vllm|ollama|llamacpp|openrouter|gemini|yandex", "how an API of type openai differs from OpenAI's own") \
  X(URL,     base_url,                 "base_url",                 "",                0,       0,           yes, "",         "API address; the endpoint's path is appended; empty = the API's own, see below") \
  X(URL,     auth_url,                 "auth_url",                 "",                0,       0,           yes, "",         "gigachat: OAuth address, empty = https://ngw.devices.sberbank.ru:9443/api/v2/oauth; with auth \"password\" the API whose /token is asked, empty = base_url") \
  X(TEXT,    auth,                     "auth",                     "oauth",           0,       0,           yes, "oauth|password|token|certificate", "gigachat: oauth = credentials are an authorization key; password = user and password, without credentials; token = credentials are a ready access token; certificate = client_cert_file and client_key_file, without any of these") \
  X(TEXT,    user,                     "user",                     "",                0,       255,         yes, "",         "gigachat, auth \"password\"") \
  X(SECRET,  password,                 "password",                 "",                0,       0,           yes, "",         "gigachat, auth \"password\"") \
  X(PATH,    client_cert_file,         "client_cert_file",         "",                0,       0,           yes, "",         "gigachat, auth \"certificate\": our certificate for the API, PEM") \
  X(PATH,    client_key_file,          "client_key_file",          "",                0,       0,           yes, "",         "gigachat, auth \"certificate\": its private key without password, PEM") \
  X(SECRET,  credentials,              "credentials",              "",                0,       0,           yes, "",         "gigachat: authorization key, base64 of client_id:client_secret; others: API key") \
  X(TEXT,    scope,                    "scope",                    "GIGACHAT_API_PERS", 0,     0,           yes, "GIGACHAT_API_PERS|GIGACHAT_API_B2B|GIGACHAT_API_CORP", "OAuth scope") \
  X(PATH,    ca_bundle_file,           "ca_bundle_file",           "",                0,       0,           yes, "",         "certificate authorities for this provider alone, PEM; empty = the system's") \
  X(U32,     max_concurrent,           "max_concurrent",           "1",               1,       100000,      yes, "requests", "parallel requests the tariff allows each account; from 1024 on they are not limited") \
  X(TEXT,    cached_tokens,            "cached_tokens",            "included",        0,       0,           yes, "included|excluded", "are cached tokens inside the provider's prompt_tokens") \
  X(TEXT,    structured_output,        "structured_output",        "native",          0,       0,           yes, "native|function", "gigachat: how an answer by a JSON schema is asked for: response_format, or a function that must be called, for models without it") \
  X(U32,     default_max_tokens,       "default_max_tokens",       "4096",            1,       10000000,    yes, "tokens",   "longest answer where the client names none and the API demands it (anthropic)") \
  X(MS,      facts_ms,                 "facts_ms",                 "600000",          0,       86400000,    yes, "ms",       "how often the provider is asked which models it has, and what its accounts have left, 0 = never") \
  X(MS,      connect_ms,               "connect_ms",               "5000",            10,      600000,      yes, "ms",       "look-up, TCP and TLS together") \
  X(MS,      first_byte_ms,            "first_byte_ms",            "120000",          10,      3600000,     yes, "ms",       "from the request sent to the first byte of the body") \
  X(MS,      idle_ms,                  "idle_ms",                  "60000",           10,      3600000,     yes, "ms",       "longest silence inside an answer") \
  X(MS,      total_ms,                 "total_ms",                 "600000",          10,      86400000,    yes, "ms",       "a whole attempt")

#define ACCOUNT_OPTIONS(X) \
  X(SECRET,  credentials,              "credentials",              "",                0,       0,           yes, "",         "as the provider's") \
  X(TEXT,    user,                     "user",                     "",                0,       255,         yes, "",         "as the provider's") \
  X(SECRET,  password,                 "password",                 "",                0,       0,           yes, "",         "as the provider's") \
  X(PATH,    client_cert_file,         "client_cert_file",         "",                0,       0,           yes, "",         "as the provider's") \
  X(PATH,    client_key_file,          "client_key_file",          "",                0,       0,           yes, "",         "as the provider's")

#define MODEL_OPTIONS(X) \
  X(TEXT,    id,                       "id",                       NULL,              1,       95,           yes, "",         "public name") \
  X(TEXT,    kind,                     "kind",                     "chat",            0,       0,           yes, "chat|embeddings", "what it makes: answers to chats, or vectors") \
  X(U32,     context_tokens,           "context_tokens",           "131072",          1,       100000000,   yes, "tokens",   "context length") \
  X(U32,     max_output_tokens,        "max_output_tokens",        "8192",            1,       10000000,    yes, "tokens",   "longest answer") \
  X(TEXT,    tokenizer,                "tokenizer",                "calibrated",      0,       0,           yes, "o200k_base|cl100k_base|calibrated|chars3", "how prompts are counted before the provider counts") \
  X(U32,     rpm,                      "limits.rpm",               "0",               0,       4294967295,  yes, "requests per minute", "of all keys together; 0 = no limit") \
  X(U32,     rpd,                      "limits.rpd",               "0",               0,       4294967295,  yes, "requests per day", "of all keys together; 0 = no limit") \
  X(U32,     tpm,                      "limits.tpm",               "0",               0,       4294967295,  yes, "tokens per minute", "of all keys together; 0 = no limit") \
  X(U32,     tpd,                      "limits.tpd",               "0",               0,       4294967295,  yes, "tokens per day", "of all keys together; 0 = no limit") \
  X(U32,     parallel,                 "limits.parallel",          "0",               0,       4294967295,  yes, "requests", "at once, of all keys together; 0 = no limit") \
  X(TEXT,    strategy,                 "strategy",                 "priority",        0,       0,           yes, "priority|weighted|latency|cost|busy", "order among candidates of one priority")

#define CANDIDATE_OPTIONS(X) \
  X(TEXT,    provider,                 "provider",                 NULL,              1,       95,           yes, "",         "a provider's name") \
  X(TEXT,    model,                    "model",                    NULL,              1,       95,           yes, "",         "the model's name at that provider") \
  X(U32,     weight,                   "weight",                   "1",               0,       1000000,     yes, "",         "share among candidates of one priority where the strategy is weighted; 0 = last resort") \
  X(U32,     priority,                 "priority",                 "0",               0,       1000000,     yes, "",         "lower is tried first") \
  X(U32,     context_tokens,           "context_tokens",           "0",               0,       100000000,   yes, "tokens",   "context length at this provider, 0 = the model's") \
  X(BOOL,    tools,                    "tools",                    "true",            0,       0,           yes, "",         "takes requests with tools or functions") \
  X(BOOL,    images,                   "images",                   "true",            0,       0,           yes, "",         "takes requests with images") \
  X(BOOL,    json_schema,              "json_schema",              "true",            0,       0,           yes, "",         "takes requests for an answer by a JSON schema")

#define PRICE_OPTIONS(X) \
  X(DATE,    from_at_ms,               "from",                     "1970-01-01",      0,       0,           yes, "",         "valid from this moment") \
  X(PRICE,   input_nano,               "input",                    "0",               0,       1000000000,  yes, "credits per 1M tokens", "prompt tokens") \
  X(PRICE,   cached_input_nano,        "cached_input",             "0",               0,       1000000000,  yes, "credits per 1M tokens", "prompt tokens the provider had cached") \
  X(PRICE,   output_nano,              "output",                   "0",               0,       1000000000,  yes, "credits per 1M tokens", "completion tokens") \
  X(PRICE,   request_nano,             "request",                  "0",               0,       1000000000,  yes, "credits", "each request")

#define TIER_OPTIONS(X) \
  X(U32,     rpm,                      "rpm",                      "0",               0,       4294967295,  yes, "requests per minute", "0 = no limit") \
  X(U32,     rpd,                      "rpd",                      "0",               0,       4294967295,  yes, "requests per day", "0 = no limit") \
  X(U32,     tpm,                      "tpm",                      "0",               0,       4294967295,  yes, "tokens per minute", "0 = no limit") \
  X(U32,     tpd,                      "tpd",                      "0",               0,       4294967295,  yes, "tokens per day", "0 = no limit") \
  X(U32,     parallel,                 "parallel",                 "0",               0,       4294967295,  yes, "requests", "requests at once, 0 = no limit")
/* clang-format on */

#define CONFIG_FIELD_U32 uint32_t
#define CONFIG_FIELD_MS int64_t
#define CONFIG_FIELD_BYTES uint64_t
#define CONFIG_FIELD_BOOL bool
#define CONFIG_FIELD_TEXT char *
#define CONFIG_FIELD_PATH char * /* absolute, or "" */
#define CONFIG_FIELD_ADDRESS char *
#define CONFIG_FIELD_URL char *
#define CONFIG_FIELD_SECRET char * /* the secret itself; "" when not set */
#define CONFIG_FIELD_PRICE int64_t
#define CONFIG_FIELD_DATE int64_t
#define X(type, field, ...) CONFIG_FIELD_##type field;

struct candidate_config {
    CANDIDATE_OPTIONS(X)
    uint32_t provider_index; /* in config.providers */
    struct price *prices;    /* sorted by from_at_ms; none = the model's count */
    size_t price_count;
};
#define CONFIG_CANDIDATES_MAX 16 /* of one model */

struct model_config {
    MODEL_OPTIONS(X)
    char **aliases;
    size_t alias_count;
    struct candidate_config *candidates; /* sorted by priority */
    size_t candidate_count;
    struct price *prices; /* sorted by from_at_ms */
    size_t price_count;
};
struct account_config {
    ACCOUNT_OPTIONS(X)
};
#define CONFIG_ACCOUNTS_MAX 32 /* of one provider, its own included */
#define CONFIG_SLOTS_MAX 1024  /* a max_concurrent from here on is no limit */
struct provider_config {
    PROVIDER_OPTIONS(X)
    struct account_config *accounts; /* beside the provider's own */
    size_t account_count;
    /* The provider as each account has it, its own ([0]) first: account_count + 1. They borrow from
     * the provider and its accounts, and have none themselves. */
    struct provider_config *by_account;
    uint32_t account_index; /* counted through all providers of the config */
};
struct tier_config {
    char *name;
    TIER_OPTIONS(X)
};
/* A name a client may ask for: a model's id or one of its aliases. */
struct model_name {
    const char *name; /* inside the model */
    size_t model_index;
};
struct config {
    CONFIG_OPTIONS(X)
    struct provider_config *providers;
    size_t provider_count;
    struct model_config *models;
    size_t model_count;
    struct tier_config *tiers;
    size_t tier_count;
    struct model_name *model_names; /* sorted by strcmp(); what config_model() searches */
    size_t model_name_count;
    char *file;          /* absolute path, "" = the embedded default */
    uint64_t generation; /* 1 at start, +1 each reload (master's count) */
    unsigned references; /* private */
};
#undef X

/* Where the problem is: 1-based line and column (0 = not from the file), the option's path and a
 * sentence. */
struct config_error {
    unsigned line;
    unsigned column;
    char path[128];
    char text[320];
};
/* Prints "FILE:LINE:COL: path: what is wrong" (parts that are absent are left out). */
void config_error_format(const struct config_error *e, const char *file, struct buf *out);

/* Reads file (NULL: the embedded default), applies the environment, checks everything (types,
 * ranges, references between sections, certificate files readable and matching, secrets present)
 * and resolves secrets. Returns 0, -ENOENT and other -errno from reading, -EINVAL; *e is filled on
 * every failure. */
int config_load(const char *file, struct config **out, struct config_error *e);
/* The same without the secrets (they are "") and without opening certificates: for the control
 * program, whose user may have neither the server's environment nor its rights. */
int config_load_public(const char *file, struct config **out, struct config_error *e);
/* The same as config_load() from text, for tests; base_dir is what relative paths start from. */
int config_parse(const char *text, size_t len, const char *file, const char *base_dir,
                 struct config **out, struct config_error *e);

struct config *config_ref(struct config *config);
void config_unref(struct config *config); /* NULL is fine; secrets are wiped with the last one */

/* The effective config as JSON. With secrets only for the sealed memory that goes from the master
 * to its children; otherwise a set secret prints as "***". */
int config_encode(const struct config *config, bool with_secrets, struct buf *out);
/* The inverse of config_encode(with_secrets): no environment, no file access. */
int config_decode(const char *text, size_t len, struct config **out, struct config_error *e);

/* Options that differ and count only after a restart, as "a, b"; "" when none. */
void config_restart_needed(const struct config *now, const struct config *next, struct buf *out);

/* docs/configuration.md's tables and the JSON schema, both rendered from the option tables. */
int config_describe_markdown(struct buf *out);
int config_describe_schema(struct buf *out);

/* The provider with the secrets of one of its accounts, 0 = its own. Lives as long as the config.
 */
const struct provider_config *provider_by_account(const struct provider_config *provider,
                                                  uint32_t account);
/* The model with that id or alias (compared with case), NULL if none. */
const struct model_config *config_model(const struct config *config, const char *name, size_t len);
/* The price of a model that is valid at at_ms; a zero price if none is. */
struct price model_price_at(const struct model_config *model, int64_t at_ms);
/* The same of one of its candidates: by its own prices if it has any, else by the model's. */
struct price candidate_price_at(const struct model_config *model,
                                const struct candidate_config *candidate, int64_t at_ms);
/* The model's candidate at that provider, under the name it has there. NULL: there is none. */
const struct candidate_config *model_candidate(const struct model_config *model,
                                               const char *provider, const char *name);

#endif
