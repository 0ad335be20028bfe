/* chat_tokens.h - how many tokens a chat request is, before it is sent.
 *
 * OpenAI's published formulas. A message: 3, its role, its content, its name and 1 more. The
 * answer:
 * 3. A tool: a constant, "name:description", and for each parameter 3 and "name:type:description".
 * They are exact for text; for tools the cookbook's example comes out right, but nested schemas and
 * calls of tools in earlier messages are not documented and counted on the high side. What a
 * provider reports is always the better number. */
#ifndef XROUTER_USAGE_CHAT_TOKENS_H
#define XROUTER_USAGE_CHAT_TOKENS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "usage/bpe.h"
#include "usage/image_tokens.h"

struct chat_token_rules {
    enum bpe_encoding encoding;
    uint32_t function; /* tokens of a tool, without its texts */
    struct image_rules image;
};

extern const struct chat_token_rules CHAT_TOKENS_O200K;  /* gpt-4o and later */
extern const struct chat_token_rules CHAT_TOKENS_CL100K; /* gpt-4, gpt-3.5-turbo */

struct chat_tokens; /* opaque: a count in progress */

/* Lists what is to be counted, which takes time but not much. messages and tools are those of a
 * chat request (arrays; NULL is fine), borrowed until chat_tokens_free(). What is not shaped as the
 * API says adds nothing. Returns 0 or -ENOMEM. */
int chat_tokens_new(const struct chat_token_rules *rules, const cJSON *messages, const cJSON *tools,
                    struct chat_tokens **out);
void chat_tokens_free(struct chat_tokens *t); /* NULL is fine */

/* Counts on for about budget (> 0) bytes. Returns 1 (there is more to do), 0 (done), -EILSEQ (not
 * UTF-8; json_check() lets none through). */
int chat_tokens_step(struct chat_tokens *t, size_t budget);
/* The count so far. */
size_t chat_tokens_total(const struct chat_tokens *t);
/* Whether the request holds what these formulas cannot count: audio, files, tools of another kind
 * (they add nothing), images of unknown size (they add the most that an image can). */
bool chat_tokens_has_unknown(const struct chat_tokens *t);

/* All of it at once. Returns 0, -ENOMEM, -EMSGSIZE, -EILSEQ. */
int chat_tokens_count(const struct chat_token_rules *rules, const cJSON *messages,
                      const cJSON *tools, size_t *tokens);

#endif
