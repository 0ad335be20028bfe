/* chat.h - a chat request of any dialect: checked, answered plain or as a stream, logged. */
#ifndef XROUTER_SIM_CHAT_H
#define XROUTER_SIM_CHAT_H

#include "tests/sim/answer.h"
#include "tests/sim/http.h"
#include "tests/sim/rules.h"

/* One answer; lives with its connection and is reused by the next request there. */
struct chat {
    struct sim_client *client;   /* whose slot it holds; NULL: none */
    struct sim_balance *balance; /* NULL: not limited */
    struct answer answer;
    struct pace pace;
    uint32_t choices;       /* how often the answer is given: OpenAI's n */
    uint64_t prompt_tokens; /* as reported */
    uint64_t cached_tokens;
    size_t calls_sent;
    struct buf envelope; /* what every event and body of this answer repeats */
    struct buf body;     /* a plain body that has to wait */
    struct buf piece;    /* the text that the choices are given one after the other */
    char marker[MARKER_TEXT_BYTES];
    char model[JOURNAL_MODEL_BYTES];
    int64_t started_at_ms;
    bool is_stream; /* asked for */
    bool is_generating;
    bool has_usage;      /* the usage was written */
    bool includes_usage; /* OpenAI's stream_options.include_usage */

    /* the stream */
    uint32_t events;
    bool is_started;  /* the first pause is over */
    bool is_paced;    /* the pause before the next event is over */
    bool is_finished; /* the event with the finish reason is out */
    bool is_over;     /* and so are all before `done` */

    /* private to the dialect; zero at the start */
    unsigned phase;
    uint32_t progress;
    uint32_t choice;
    uint32_t block;
    unsigned block_kind;
    size_t call;
};

/* Begins the record of a chat request; every chat route answer is journaled at its end. False when
 * out of memory: answered with 500. */
bool chat_open(struct conn *conn);
/* Answers a request that met no fault so far. */
void chat_answer(struct conn *conn);

/* Tokens of what has been generated, in all choices. */
uint64_t chat_completion_tokens(const struct chat *chat);
/* A member of the usage: the number, or what bad_usage makes of it. */
void chat_put_number(const struct conn *conn, struct buf *out, const char *name, uint64_t value);
/* How many bytes of the call's arguments the next event is to hold; 0: all were sent. */
size_t chat_fragment_bytes(const struct conn *conn, const struct call *call);

/* The producer of a stream whose headers are out. */
enum http_step stream_produce(struct conn *conn);
/* An event of the answer in the scratch buf, open behind "data: "; name: NULL or its event: line.
 * stream_send() ends and sends it. */
struct buf *stream_event(struct conn *conn, const char *name);
void stream_send(struct conn *conn, struct buf *event);
/* The same for what is no part of the answer: not counted, and spared by the plan. */
struct buf *stream_extra(struct conn *conn, const char *name);
void stream_send_extra(struct conn *conn, struct buf *event);

/* The whole answer as one body, with the plan's faults. */
void plain_answer(struct conn *conn);

#endif
