/* config.h - what the simulator was told to be: one strict JSON file, every key optional.
 * An unknown key, a wrong type or a value out of range is an error that names it. */
#ifndef XROUTER_SIM_CONFIG_H
#define XROUTER_SIM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_CONFIG_WHY_BYTES 200

/* Scalar options. kind: U32, BOOL (0 or 1) or CHOICE (index into the listed words). */
/* clang-format off */
/* kind    name                    default  min or words             max         help */
#define SIM_OPTIONS(X) \
    X(U32,    seed,                     0,  0,                       0xffffffff, "fixes ids, tokens and `created`; 0: a new one each start") \
    X(U32,    token_ttl_ms,             1800000, 1,                  0xffffffff, "how long an access token is accepted") \
    X(CHOICE, expires_unit,             0,  "ms|s",                  0,          "unit of `expires_at`") \
    X(CHOICE, token_shape,              0,  "access_token|tok",      0,          "`{access_token,expires_at}` or `{tok,exp}`") \
    X(BOOL,   single_token,             0,  0,                       1,          "a new token kills the client's old ones") \
    X(U32,    oauth_rps,                10, 0,                       1000000,    "token requests per second before 429; 0: no limit") \
    X(CHOICE, bad_authorization_status, 0,  "400|401",               0,          "HTTP status of OAuth code 4 (sources differ)") \
    X(BOOL,   require_user_agent,       1,  0,                       1,          "403 for API calls without User-Agent") \
    X(U32,    first_token_ms,           0,  0,                       3600000,    "silence before the first event, or before a plain answer") \
    X(U32,    chunk_ms,                 0,  0,                       3600000,    "time between events") \
    X(U32,    chunk_words,              1,  1,                       1000000,    "words in an event") \
    X(U32,    answer_words,             16, 0,                       100000000,  "words in an answer") \
    X(U32,    retry_after,              0,  0,                       86400,      "Retry-After of every 429, in seconds; 0: none") \
    X(CHOICE, cached_tokens,            0,  "included|excluded",     0,          "whether prompt_tokens counts precached_prompt_tokens too")
/* clang-format on */

enum expires_unit { EXPIRES_MS, EXPIRES_S };
enum token_shape { TOKEN_SHAPE_ACCESS_TOKEN, TOKEN_SHAPE_TOK };
enum bad_authorization_status { BAD_AUTHORIZATION_400, BAD_AUTHORIZATION_401 };
enum cached_tokens { CACHED_INCLUDED, CACHED_EXCLUDED };
/* The APIs played: see dialect.h. */
enum dialect_id { DIALECT_GIGACHAT, DIALECT_OPENAI, DIALECT_ANTHROPIC, DIALECT_COUNT };

enum model_type { MODEL_CHAT, MODEL_EMBEDDER, MODEL_AICHECK, MODEL_FILTER };

/* Bits of sim_client.scopes, and the order of SIM_SCOPE_NAMES. */
enum { SCOPE_PERS = 1, SCOPE_B2B = 2, SCOPE_CORP = 4, SCOPE_COUNT = 3 };
extern const char *const SIM_SCOPE_NAMES[SCOPE_COUNT];

struct sim_balance {
    char *model;
    int64_t tokens; /* left; goes down while running */
};

/* A GigaChat client, or an API key of the other dialects. */
struct sim_client {
    char *id;                /* or the key */
    char *secret;            /* NULL of a key */
    unsigned scopes;         /* SCOPE_... */
    uint32_t max_concurrent; /* 0: no limit */
    struct sim_balance *balances;
    size_t balance_count;
    uint32_t in_flight; /* answers being generated right now */
};

struct sim_model {
    char *id;
    enum model_type type;
    enum dialect_id dialect; /* DIALECT_COUNT: served in every one */
    uint32_t context_tokens;
    bool has_functions;
};

struct sim_config {
#define X(kind, name, fallback, min, max, help) uint32_t name;
    SIM_OPTIONS(X)
#undef X
    char *listen;
    char *tls_cert; /* NULL: plain HTTP */
    char *tls_key;
    struct sim_client *clients;
    size_t client_count;
    struct sim_client *api_keys;
    size_t api_key_count;
    struct sim_model *models;
    size_t model_count;
};

/* The built-in configuration: one client demo-client:demo-secret with every scope, one API key
 * sk-sim, no limits, the current models, 127.0.0.1:0. Returns 0 or -ENOMEM; sim_config_clear()
 * either way. */
int sim_config_init(struct sim_config *config);
void sim_config_clear(struct sim_config *config);

/* Puts the JSON text's values over what is there; clients, api_keys and models replace the lists.
 * Returns 0, -EINVAL or -ENOMEM with why filled. */
int sim_config_merge(struct sim_config *config, const char *text, size_t len,
                     char why[SIM_CONFIG_WHY_BYTES]);
/* sim_config_merge() of a file. Also -errno. */
int sim_config_load(struct sim_config *config, const char *path, char why[SIM_CONFIG_WHY_BYTES]);

const char *sim_model_type_name(enum model_type type);
bool sim_model_speaks(const struct sim_model *model, enum dialect_id dialect);
const struct sim_model *sim_config_model(const struct sim_config *config, enum dialect_id dialect,
                                         const char *id);
/* NULL when the len bytes at text are no key. */
struct sim_client *sim_config_api_key(const struct sim_config *config, const char *text,
                                      size_t len);
/* NULL when the client's tokens for this model are not limited. */
struct sim_balance *sim_client_balance(const struct sim_client *client, const char *model);

#endif
