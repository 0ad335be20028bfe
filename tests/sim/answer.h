/* answer.h - what the model "says": made from the request alone, so the same request gives the same
 * text. An answer is composed once and then read piece by piece, however long it is. */
#ifndef XROUTER_SIM_ANSWER_H
#define XROUTER_SIM_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "tests/sim/rules.h"
#include "tests/sim/scenario.h"

#define ANSWER_CALLS_MAX 8

enum finish {
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_CALL,
    FINISH_BLACKLIST,
    FINISH_ERROR,
    FINISH_STOP_SEQUENCE,
    FINISH_COUNT
};

struct call {
    struct buf name;
    struct buf arguments; /* JSON text, or broken JSON after call_error */
    /* for whoever sends it in pieces */
    bool is_begun;
    size_t sent_bytes; /* of the arguments */
};

struct answer {
    struct call calls[ANSWER_CALLS_MAX];
    size_t call_count;
    struct buf text;    /* what content is made of */
    bool is_cyclic;     /* text is words to be repeated, not the content itself */
    enum finish finish; /* final once answer_next() has returned false */
    struct buf stop;    /* the stop sequence that ends it, with FINISH_STOP_SEQUENCE */

    /* private: where reading stands */
    const char *prefix;   /* comes before text */
    bool is_prefix_apart; /* it is thinking, not content */
    size_t prefix_at;
    size_t at;
    uint64_t words_left;
    uint64_t code_points_left;
    enum finish finish_if_cut;
    uint64_t code_points; /* read so far */
    uint64_t thinking_code_points;
    bool started;
};

void answer_init(struct answer *answer);
void answer_clear(struct answer *answer);

/* Composes the answer to a request that passed the rules; reuses the memory of the last one.
 * Returns 0 or -ENOMEM. */
int answer_compose(struct answer *answer, const struct sim_request *request,
                   const struct plan *plan, const struct pace *pace);
/* Appends the content's next words (as many as asked for) to piece. False when nothing is left. A
 * piece is either thinking or content, never both. */
bool answer_next(struct answer *answer, uint32_t words, struct buf *piece);
/* What the next piece will be, where thinking is apart. */
bool answer_is_thinking(const struct answer *answer);
/* Nothing is left to be read; false may still mean that a limit leaves nothing. */
bool answer_is_over(const struct answer *answer);
bool answer_has_call(const struct answer *answer);
/* Tokens of what has been read, and of the first calls. */
uint64_t answer_tokens(const struct answer *answer, size_t calls);
uint64_t answer_thinking_tokens(const struct answer *answer);

/* A value that satisfies the JSON schema in the simulator's fixed way: string "x", integer 1,
 * number 1.5, true, the first of an enum, arrays of one, objects with every property. indent < 0
 * writes it compactly. */
void schema_fill(struct buf *out, const cJSON *schema, int indent);

#endif
