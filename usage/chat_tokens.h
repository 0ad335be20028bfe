/* chat_tokens.h - how many tokens a chat request is, before it is sent.
 *
 * OpenAI's published formulas. A message: 3, its role, its content, its name and 1 more. The
 * answer: 3. A tool: a constant, "name:description", and for each parameter 3 and
 * "name:type:description". They are exact for text; for tools the cookbook's example comes out
 * right, but nested schemas and calls of tools in earlier messages are not documented and counted
 * on the high side. What a provider reports is always the better number.
 *
 * chars3 has no vocabulary and no formula: of a message it counts the content, as one text, and
 * tools and all else are free. */
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
    bool is_chars3;    /* then neither encoding nor function counts */
    uint32_t function; /* tokens of a tool, without its texts */
    struct image_rules image;
};

extern const struct chat_token_rules CHAT_TOKENS_O200K;  /* gpt-4o and later */
extern const struct chat_token_rules CHAT_TOKENS_CL100K; /* gpt-4, gpt-3.5-turbo */
extern const struct chat_token_rules CHAT_TOKENS_CHARS3;

struct chat_tokens; /* opaque: a count in progress */

/* Lists what is to be counted, which takes time but not much. messages and tools are those of a
 * chat request (arrays; NULL is fine), borrowed until chat_tokens_free(). What is not shaped as the
 * API says adds nothing. Returns 0 or -ENOMEM. */
int chat_tokens_new(const struct chat_token_rules *rules, const cJSON *messages, const cJSON *tools,
                    struct chat_tokens **out);
/* Text alone, without formulas: a string, or an array whose strings are counted one by one. */
int chat_tokens_new_text(const struct chat_token_rules *rules, const cJSON *input,
                         struct chat_tokens **out);
void chat_tokens_free(struct chat_tokens *t); /* NULL is fine */

/* Counts on for about budget (> 0) bytes. Returns 1 (there is more to do), 0 (done), -EILSEQ (not
 * UTF-8; json_check() lets none through). */
int chat_tokens_step(struct chat_tokens *t, size_t budget);
/* The count so far. */
size_t chat_tokens_total(const struct chat_tokens *t);
/* Of these, what stands for images. */
size_t chat_tokens_images(const struct chat_tokens *t);
/* Code points, so far, of what the messages say: their contents (texts and refusals of parts
 * included), or the texts. Roles, names, calls and tools are not among them. */
int64_t chat_tokens_characters(const struct chat_tokens *t);
/* Whether the request holds what these rules cannot count: audio, files, tools of another kind
 * (they add nothing), images of unknown size (they add the most that an image can); for chars3 any
 * image. */
bool chat_tokens_has_unknown(const struct chat_tokens *t);
/* Whether it is nothing but what people and models have written: no image or other attachment, no
 * tool, no call. */
bool chat_tokens_is_plain(const struct chat_tokens *t);

/* All of it at once. Returns 0, -ENOMEM, -EILSEQ. */
int chat_tokens_count(const struct chat_token_rules *rules, const cJSON *messages,
                      const cJSON *tools, size_t *tokens);

/* No request has more tokens than this: its JSON text is so many bytes long and has so many
 * images. Saturates. */
int64_t chat_tokens_bound(const struct chat_token_rules *rules, size_t json_bytes, size_t images);

#endif
