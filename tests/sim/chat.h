/* chat.h - POST /v1/chat/completions: one request, checked, answered plain or as a stream. */
#ifndef XROUTER_SIM_CHAT_H
#define XROUTER_SIM_CHAT_H

#include "tests/sim/answer.h"
#include "tests/sim/http.h"
#include "tests/sim/rules.h"

enum chat_phase {
    PHASE_PROGRESS,
    PHASE_TEXT,
    PHASE_CALL,
    PHASE_CALL_REST,
    PHASE_FINISH,
    PHASE_DONE
};

/* One answer; lives with its connection and is reused by the next request there. */
struct chat {
    struct sim_client *client;   /* whose slot it holds; NULL: none */
    struct sim_balance *balance; /* NULL: not limited */
    struct answer answer;
    struct pace pace;
    uint64_t prompt_tokens; /* as reported */
    uint64_t cached_tokens;
    struct buf tail; /* the end that every event and body has: created, model, object */
    struct buf body; /* a plain body that has to wait */
    char marker[MARKER_TEXT_BYTES];
    int64_t started_at_ms;
    bool is_stream;
    bool is_generating;
    bool is_call_sent;
    bool has_usage; /* the usage was written */

    /* the stream */
    enum chat_phase phase;
    uint32_t events;
    uint32_t progress;
    bool is_started; /* the first pause is over */
    bool is_paced;   /* the pause before the next event is over */
};

/* Begins the record of a chat request; every chat route answer is journaled at its end. False when
 * out of memory: answered with 500. */
bool chat_open(struct conn *conn);
/* Answers a request that met no fault so far. */
void chat_answer(struct conn *conn);

/* For stream.c and plain.c. */
void chat_put_usage(struct conn *conn, struct buf *out);
/* "function_call":{...},"functions_state_id":"..." */
void chat_put_call(struct conn *conn, struct buf *out);

/* The producer of a stream whose headers are out. */
enum http_step stream_produce(struct conn *conn);
/* The whole answer as one body, with the plan's faults. */
void plain_answer(struct conn *conn);

#endif
