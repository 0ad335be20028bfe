/* rules.h - what a chat request must be, checked in one fixed order, and what its prompt costs.
 * Pure functions: a request's facts in, a verdict out. */
#ifndef XROUTER_SIM_RULES_H
#define XROUTER_SIM_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "tests/sim/config.h"

#define VERDICT_MESSAGE_BYTES 400
#define VERDICT_PARAM_BYTES 64

struct verdict {
    int status;                      /* 0: passed */
    const char *code;                /* for dialects that have one; NULL: the status's own */
    char param[VERDICT_PARAM_BYTES]; /* the field at fault; "" for none */
    char message[VERDICT_MESSAGE_BYTES];
};

enum token_state { TOKEN_UNKNOWN, TOKEN_EXPIRED, TOKEN_VALID };

/* What is known of a caller before the body is read. */
struct caller {
    bool has_user_agent;
    bool has_json_type;
    bool has_version; /* anthropic-version */
    enum token_state token;
    struct sim_client *client; /* NULL unless the token is valid */
};

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_FUNCTION, ROLE_UNKNOWN };

/* A chat request that passed; everything points into root and tree, which are owned:
 * sim_request_clear(). Messages and functions are in GigaChat's words, whatever the dialect. */
struct sim_request {
    cJSON *root;
    cJSON *tree;        /* what translate.h made of root; NULL in GigaChat's dialect */
    bool is_incomplete; /* no memory for the tree */
    const char *model;
    const struct sim_model *entry; /* NULL for a model that names a scenario */
    const cJSON *messages;
    const cJSON *last;      /* the last message */
    const char *last_user;  /* content of the last user message, "" if none */
    const cJSON *functions; /* NULL when none are offered */
    const char *forced;     /* the function that must be called, NULL if none */
    const cJSON *schema;    /* of response_format, NULL if none */
    bool calls_allowed;     /* functions are offered and function_call is not "none" */
    bool stream;
    bool must_call;          /* some function, not a certain one */
    bool one_call;           /* never several in parallel */
    bool separates_thinking; /* thoughts are a part of their own, not marked up in the content */
    bool wants_thinking;
    bool includes_usage;    /* in a stream */
    uint32_t choices;       /* answers asked for */
    const cJSON *stops;     /* a text or a list of them; NULL: none */
    const char *cache_key;  /* names the conversation to the prompt cache; NULL: nothing does */
    int64_t max_tokens;     /* 0: no limit */
    double update_interval; /* seconds */
    uint64_t prompt_tokens; /* cached ones included */
};

/* Numbers that a body may have. */
struct range {
    const char *name;
    double min;
    double max;
    bool open; /* min itself is outside */
    bool whole;
    const char *text; /* for the error */
};

/* Fills verdict; false, so that a check can return it. */
__attribute__((format(printf, 3, 4))) bool verdict_refuse(struct verdict *verdict, int status,
                                                          const char *format, ...);

/* What the dialects' checks share. */
bool rules_is_absent(const cJSON *item); /* or null */
/* Sets request->entry, unless the model names a scenario. False: there is no such chat model. */
bool rules_find_model(const struct sim_config *config, enum dialect_id dialect,
                      struct sim_request *request);
enum client_limit { LIMIT_NONE, LIMIT_BALANCE, LIMIT_CONCURRENT };
enum client_limit rules_client_limit(const struct sim_client *client,
                                     const struct sim_request *request);
/* The first range that a number of root is outside of, or NULL. */
const struct range *rules_out_of_range(const cJSON *root, const struct range *list, size_t count);

uint64_t count_code_points(const char *text, size_t len);
/* The tokenizer: a token is three code points, rounded up. */
uint64_t count_tokens(uint64_t code_points);
/* Per message the tokens of its content; no template, functions are free. */
uint64_t count_prompt_tokens(const cJSON *messages);

const char *role_name(enum role role);
enum role role_of(const cJSON *message);

/* The checks before a path is looked at: user agent, token. */
bool rules_admit(const struct sim_config *config, const struct caller *caller,
                 struct verdict *verdict);
/* All checks, in the order: user agent, token, JSON and shapes, model, balance, concurrency,
 * message rules, response_format, context. On true *out is filled and the caller's to clear. */
bool rules_check_chat(const struct sim_config *config, const struct caller *caller,
                      const char *body, size_t len, struct sim_request *out,
                      struct verdict *verdict);
void sim_request_clear(struct sim_request *request);

#endif
