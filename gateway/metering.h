/* metering.h - what one chat uses, by our own count: its prompt before it runs, its answer as it
 * comes, and at the end whose numbers the event gets.
 *
 * A prompt is counted before admission only if somebody needs to know: the key pays by a limited
 * account, the text is long, or it may pass the model's context. Otherwise it is counted at the end
 * if the provider has reported nothing, and now and then to learn the model's ratio
 * (usage/calibration.h). */
#ifndef XROUTER_GATEWAY_METERING_H
#define XROUTER_GATEWAY_METERING_H

#include "gateway/counting.h"
#include "gateway/worker.h"
#include "router/route.h"
#include "usage/answer_tokens.h"
#include "usage/prompt_tokens.h"

/* Bytes of a request that may still be counted at its end, all at once: some 1 ms. */
#define METERING_LATE_BYTES ((size_t)64 * 1024)

struct metering { /* embedded in the chat */
    struct worker *worker;
    const struct model_config *model;
    const struct model_request *request;
    struct token_meter meter;     /* for the adapter */
    struct answer_tokens answer;  /* what it has told */
    struct usage_event *event;    /* NULL until admitted; its tokens_output grows with the answer */
    struct token_estimate prompt; /* a guess until is_counted */
    bool is_counted;
    bool is_foreign; /* counted by another model's tokenizer, and too long to be counted again */
    struct counting_job job; /* of a prompt that is counted before admission */
    /* That count is over. */
    void (*on_counted)(struct metering *m);
};

/* How a request ended. */
struct metering_end {
    struct token_usage usage; /* the provider's, if is_final */
    bool is_final;
    bool has_answer; /* a byte of an answer has come */
    bool is_refused; /* the client got an error status: that costs nothing */
    bool is_whole;   /* the answer went to its end */
};

/* All borrowed. */
void metering_init(struct metering *m, struct worker *w, const struct model_config *model,
                   const struct model_request *request);
/* Another model is to answer: from here on its tokenizer and its ratio count. Before a byte of its
 * answer has come. */
void metering_use_model(struct metering *m, const struct model_config *model);
/* Ends a count that runs, without on_counted. */
void metering_cancel(struct metering *m);
/* All zero is fine. */
void metering_clear(struct metering *m);

/* Counts the prompt if it has to be known: for the account (is_limited), or for the context of one
 * of the route's candidates. 0 (m->prompt is as good as it has to be), 1 (on_counted comes
 * later), -ENOMEM. */
int metering_start(struct metering *m, const struct route *route, bool is_limited);
bool metering_is_counting(const struct metering *m);
/* The tokens that the request needs at least, its own max_tokens included: for the context. */
int64_t metering_least(const struct metering *m);
/* The prompt's tokens, on the safe side for who reserves. */
int64_t metering_prompt_at_most(struct metering *m);
/* The dearest the request can become at any of the candidates, for nobody knows yet who will
 * answer: no token of the prompt cached, the answer as long as it may be. At most ACCOUNT_MAX_NANO.
 */
int64_t metering_cost_at_most_nano(struct metering *m, const struct route *route);

/* Fills the event's tokens, source and cost: the provider's numbers if it told them, else our own
 * count, else nothing. What the provider told teaches the model's ratio. */
void metering_settle(struct metering *m, struct usage_event *event, const struct metering_end *end);

/* The model's ratio as it is now. */
uint32_t metering_ratio(const struct worker *w, const struct model_config *model);

#endif
