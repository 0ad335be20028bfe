#include "usage/answer_tokens.h"

#include <stdbool.h>

#include "common/utf8.h"
#include "usage/calibration.h"
#include "usage/chars3.h"
#include "usage/tokenizer.h"

#define CHARACTERS_PER_TOKEN 4 /* a guess */

void answer_tokens_init(struct answer_tokens *a, const struct model_config *model)
{
    *a = (struct answer_tokens){.tokenizer = tokenizer_of(model)};
    buf_init(&a->text, ANSWER_TOKENS_WINDOW);
}

void answer_tokens_clear(struct answer_tokens *a)
{
    buf_clear(&a->text);
}

static int64_t guess(int64_t characters)
{
    return characters / CHARACTERS_PER_TOKEN + (characters % CHARACTERS_PER_TOKEN != 0);
}

/* The bytes from the first on that are valid UTF-8. */
static size_t valid_len(const char *text, size_t len)
{
    size_t at = 0;

    while (at < len) {
        size_t width = utf8_width(text + at, len - at);

        if (width == 0)
            break;
        at += width;
    }
    return at;
}

static int64_t count_text(enum bpe_encoding encoding, const char *text, size_t len)
{
    int64_t sum = 0;
    size_t tokens;

    while (bpe_count(encoding, text, len, &tokens) < 0) {
        size_t valid = valid_len(text, len); /* < len */

        /* Cannot fail: it is valid. */
        sum += bpe_count(encoding, text, valid, &tokens) == 0 ? (int64_t)tokens : 0;
        sum++; /* the byte that is not */
        text += valid + 1;
        len -= valid + 1;
    }
    return sum + (int64_t)tokens;
}

/* Whether a character of this kind is surely no white space: all of Unicode's begins with an ASCII
 * byte up to the space or with C2, E1, E2 or E3. */
static bool is_solid(unsigned char lead)
{
    return lead > ' ' && lead != 0xc2 && (lead < 0xe1 || lead > 0xe3);
}

/* Whether the text may be cut at a place inside it, so that both parts counted alone come to the
 * same.
 *
 * A space behind a solid character: no alternative of the splits (usage/pretokenize.c) goes on from
 * such a character to a space, so a piece ends there; and none looks back, so the pieces behind are
 * the same. Those before are, too: a space stops letters, digits, signs and contractions just as
 * the end of a text does, and what looks ahead (white space, for what follows it) ends before the
 * solid character.
 *
 * A solid character behind a line feed: a run of white space ends with its last line end, and
 * signs take the line ends behind them, but (o200k_base) slashes among these as well. */
static bool is_boundary(const char *text, size_t at)
{
    unsigned char after = (unsigned char)text[at];
    size_t before = at - 1;

    if (text[before] == '\n')
        return is_solid(after) && after != '/' && !utf8_is_continuation(text[at]);
    if (after != ' ')
        return false;
    while (before > 0 && utf8_is_continuation(text[before]))
        before--;
    return is_solid((unsigned char)text[before]);
}

/* Where a full window is cut: as late as it may be. */
static size_t find_cut(const char *text, size_t len)
{
    for (size_t at = len - 1; at > 0; at--)
        if (is_boundary(text, at))
            return at;
    return utf8_cut(text, len);
}

static void count_window(struct answer_tokens *a)
{
    size_t cut = find_cut(a->text.data, a->text.len);

    a->counted += count_text(a->tokenizer->rules->encoding, a->text.data, cut);
    buf_drop(&a->text, cut);
}

void answer_tokens_add(struct answer_tokens *a, const char *text, size_t len)
{
    a->characters += (int64_t)chars3_characters(text, len);
    if (a->tokenizer->rules->is_chars3)
        return;
    while (len > 0) {
        size_t room = ANSWER_TOKENS_WINDOW - a->text.len;
        size_t n = len < room ? len : room;

        if (buf_append(&a->text, text, n) < 0) {
            a->text.err = 0; /* the next piece is tried again */
            a->lost += (int64_t)chars3_characters(text, len);
            return;
        }
        text += n;
        len -= n;
        if (a->text.len == ANSWER_TOKENS_WINDOW)
            count_window(a);
    }
}

void answer_tokens_reset(struct answer_tokens *a)
{
    buf_reset(&a->text);
    a->counted = a->characters = a->lost = 0;
}

int64_t answer_tokens_guess(const struct answer_tokens *a)
{
    return a->tokenizer->rules->is_chars3 ? chars3_tokens(a->characters) : guess(a->characters);
}

int64_t answer_tokens_count(const struct answer_tokens *a, uint32_t ratio)
{
    int64_t tokens;

    if (a->tokenizer->rules->is_chars3)
        return chars3_tokens(a->characters);
    tokens = a->counted + count_text(a->tokenizer->rules->encoding, a->text.data, a->text.len);
    if (a->tokenizer->is_calibrated)
        tokens = calibration_apply(ratio, tokens);
    return tokens + guess(a->lost);
}
