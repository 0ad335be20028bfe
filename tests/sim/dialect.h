/* dialect.h - the APIs that the simulator plays. What differs between them is one table each: how a
 * caller shows who it is, what a request must be, how errors, bodies and events are written. What
 * they share (checks of the plan, pace, tokens, the log) knows only this table. */
#ifndef XROUTER_SIM_DIALECT_H
#define XROUTER_SIM_DIALECT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "tests/sim/answer.h"
#include "tests/sim/http.h"
#include "tests/sim/rules.h"

/* An event that is always the same. */
struct fixed_event {
    const char *name; /* of its event: line, NULL for none */
    const char *data;
};

struct dialect {
    const char *name; /* as in the log and in models[].dialect */
    enum dialect_id id;
    bool has_parallel_calls; /* [[calls:N]] means something here */
    const char *json_type;   /* Content-Type of a body */
    const char *sse_type;    /* and of a stream */
    const char *headers;     /* of every answer, each line with its CRLF */
    const char *unauthorized_text;
    const char *overrun_text; /* of a 429 */
    struct fixed_event done;
    struct fixed_event failure; /* the scenario stream_error */
    const char *finish_names[FINISH_COUNT];

    /* Headers with the ids of this answer. */
    void (*put_ids)(struct conn *conn, struct buf *out);
    /* The body of an error. */
    void (*put_error)(struct conn *conn, struct buf *out, const struct verdict *verdict);
    /* What the request's headers say of its sender. */
    void (*identify)(const struct conn *conn, struct caller *caller);
    /* All checks, in the dialect's order: see rules_check_chat(). */
    bool (*check_chat)(const struct sim_config *config, const struct caller *caller,
                       const char *body, size_t len, struct sim_request *out,
                       struct verdict *verdict);
    /* Before the first byte: fills chat->envelope and reports the prompt's tokens its own way. */
    void (*begin)(struct conn *conn, const struct sim_request *request, bool streams);
    /* The whole plain body. */
    void (*put_body)(struct conn *conn, struct buf *out, const struct buf *text,
                     const struct buf *thinking);
    /* Sends the next event of a stream; sets chat->is_finished with the one that has the finish
     * reason, chat->is_over with the last before `done`, chat->is_paced if the next is not to wait.
     */
    void (*send_next)(struct conn *conn);
    /* One more event with text, behind the end. */
    void (*send_late)(struct conn *conn);
    /* The usage once more, in an event of its own. */
    void (*send_usage_again)(struct conn *conn);
};

extern const struct dialect dialect_gigachat;
extern const struct dialect dialect_openai;
extern const struct dialect dialect_anthropic;

const struct dialect *dialect_by_id(enum dialect_id id);

/* GET /v1/models, GET /v1/models/{id}, and wrong paths. */
void gigachat_answer_models(struct conn *conn);
void gigachat_answer_model(struct conn *conn);
void gigachat_answer_other(struct conn *conn);
/* GET /openai/v1/models, and wrong paths below /openai/. */
void openai_answer_models(struct conn *conn);
void openai_answer_other(struct conn *conn);
/* GET /anthropic/v1/models, and wrong paths below /anthropic/. */
void anthropic_answer_models(struct conn *conn);
void anthropic_answer_other(struct conn *conn);

#endif
