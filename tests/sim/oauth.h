/* oauth.h - access tokens: issued at POST /api/v2/oauth, looked up by every API call. */
#ifndef XROUTER_SIM_OAUTH_H
#define XROUTER_SIM_OAUTH_H

#include "tests/sim/http.h"
#include "tests/sim/rules.h"

struct token_store; /* opaque; holds the last TOKEN_SLOTS tokens */

struct token_store *tokens_new(void); /* NULL when out of memory */
void tokens_free(struct token_store *store);
/* Every token is expired from now on. */
void tokens_expire(struct token_store *store);
/* authorization: the header's value, "Bearer ...". *client is set when the token is valid. */
enum token_state tokens_lookup(const struct token_store *store, struct span authorization,
                               int64_t now_at_ms, struct sim_client **client);

/* Answers POST /api/v2/oauth. */
void oauth_answer(struct conn *conn);
/* OAuth's errors: {"code","message"}; code 0 leaves the code out. */
void oauth_reply_error(struct conn *conn, int status, int code, const char *message);

#endif
