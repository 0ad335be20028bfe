/* openai_plain.h - the ordinary chunk, told by comparing bytes: most chunks of a stream are the one
 * before with another text. What stood before and behind the text is remembered, as it came and as
 * it went to the client; a chunk with the same around its text needs no parser. */
#ifndef XROUTER_PROVIDERS_OPENAI_PLAIN_H
#define XROUTER_PROVIDERS_OPENAI_PLAIN_H

#include "common/json.h"
#include "providers/provider.h"

#define PLAIN_FORMS 4 /* content, reasoning, arguments, another choice: they may alternate */

/* One side of a form: the bytes around its holes. The first hole is the text, the second, which not
 * all have, OpenAI's random padding. */
struct plain_frame {
    struct buf bytes; /* head, middle, tail */
    size_t head_len, middle_len;
};

struct plain_forms { /* private */
    struct plain_form {
        struct plain_frame in, out; /* in.bytes empty = unused */
        bool has_padding;
    } all[PLAIN_FORMS];
    unsigned last;   /* the one that fitted */
    unsigned next;   /* the one to be forgotten */
    struct buf text; /* escapes undone */
};

void plain_forms_init(struct plain_forms *f);
void plain_forms_clear(struct plain_forms *f);
/* A checked chunk with one text and nothing else that counts, and what became of it: remembered if
 * both have the same text at a place we know. Out of memory it is not. */
void plain_forms_learn(struct plain_forms *f, struct json_span in, struct json_span out);
/* If the chunk has a known form: its text goes to the meter, the client's chunk is appended to out
 * and true is returned. The chunk need not have been checked. */
bool plain_forms_relay(struct plain_forms *f, struct json_span in, struct token_meter *meter,
                       struct buf *out);

#endif
