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

struct verdict {
    int status; /* 0: passed */
    char message[VERDICT_MESSAGE_BYTES];
};

enum token_state { TOKEN_UNKNOWN, TOKEN_EXPIRED, TOKEN_VALID };

/* What is known of a caller before the body is read. */
struct caller {
    bool has_user_agent;
    bool has_json_type;
    enum token_state token;
    struct sim_client *client; /* NULL unless the token is valid */
};

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_FUNCTION, ROLE_UNKNOWN };

/* A chat request that passed; everything points into root. */
struct sim_request {
    cJSON *root; /* owned: sim_request_clear() */
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
    int64_t max_tokens;     /* 0: no limit */
    double update_interval; /* seconds */
    uint64_t prompt_tokens; /* cached ones included */
};

uint64_t count_code_points(const char *text, size_t len);
/* The tokenizer: a token is three code points, rounded up. */
uint64_t count_tokens(uint64_t code_points);
/* Per message the tokens of its content; no template, functions are free. */
uint64_t count_prompt_tokens(const cJSON *messages);

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
