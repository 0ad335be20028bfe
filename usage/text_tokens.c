#include "usage/text_tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "usage/chars3.h"

#define TEXTS_FIRST 32
#define TEXT_COST 32           /* bytes of a budget that beginning a text is worth */
#define CHARACTERS_PER_COST 16 /* bytes whose characters are counted for one byte of a budget */

struct listed_text {
    const char *borrowed; /* NULL: in the composed ones */
    size_t at;
    size_t len;
    size_t group;
    bool is_content;
};

void text_tokens_init(struct text_tokens *t, enum bpe_encoding encoding, bool is_chars3)
{
    *t = (struct text_tokens){.encoding = encoding, .is_chars3 = is_chars3};
    buf_init(&t->composed, SIZE_MAX); /* a few times the request, which has a limit */
}

void text_tokens_clear(struct text_tokens *t)
{
    buf_clear(&t->composed);
    free(t->texts);
    *t = (struct text_tokens){.encoding = t->encoding, .is_chars3 = t->is_chars3};
}

static void add_text(struct text_tokens *t, struct listed_text text)
{
    if (t->rc < 0 || text.len == 0)
        return;
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? TEXTS_FIRST : 2 * t->capacity;
        struct listed_text *texts = reallocarray(t->texts, capacity, sizeof(*texts));

        if (texts == NULL) {
            t->rc = -ENOMEM;
            return;
        }
        t->texts = texts;
        t->capacity = capacity;
    }
    text.group = t->group;
    t->texts[t->count++] = text;
}

void text_tokens_add(struct text_tokens *t, const char *text, bool is_content)
{
    if (text != NULL)
        add_text(t, (struct listed_text){
                        .borrowed = text, .len = strlen(text), .is_content = is_content});
}

struct buf *text_tokens_compose(struct text_tokens *t)
{
    return &t->composed;
}

void text_tokens_add_composed(struct text_tokens *t, size_t from)
{
    if (t->rc == 0)
        t->rc = t->composed.err;
    add_text(t, (struct listed_text){.at = from, .len = t->composed.len - from});
}

void text_tokens_begin_group(struct text_tokens *t)
{
    t->group++;
}

int text_tokens_error(const struct text_tokens *t)
{
    return t->rc;
}

static const char *bytes_of(const struct text_tokens *t, const struct listed_text *text)
{
    return text->borrowed != NULL ? text->borrowed : t->composed.data + text->at;
}

static void spend(size_t *budget, size_t cost)
{
    *budget -= cost < *budget ? cost : *budget;
}

/* As many of a text's characters as the budget allows. */
static void count_characters(struct text_tokens *t, const struct listed_text *text, size_t *budget)
{
    size_t len = text->len - t->at;
    int64_t characters;

    if (len / CHARACTERS_PER_COST >= *budget)
        len = *budget * CHARACTERS_PER_COST;
    characters = (int64_t)chars3_characters(bytes_of(t, text) + t->at, len);
    t->characters += characters;
    t->in_group += characters;
    t->at += len;
    spend(budget, len / CHARACTERS_PER_COST);
}

static void begin_text(struct text_tokens *t, const struct listed_text *text)
{
    if (text->group != t->now_group) {
        if (t->is_chars3)
            t->done += chars3_tokens(t->in_group);
        t->in_group = 0;
        t->now_group = text->group;
    }
    if (!t->is_chars3)
        bpe_counter_init(&t->counter, t->encoding, bytes_of(t, text), text->len);
    t->at = 0;
    t->is_counting = true;
}

static void end_text(struct text_tokens *t)
{
    if (!t->is_chars3)
        t->done += (int64_t)t->counter.tokens;
    t->is_counting = false;
    t->next++;
}

int text_tokens_step(struct text_tokens *t, size_t budget)
{
    while (t->next < t->count && budget > 0) {
        const struct listed_text *text = &t->texts[t->next];

        if (!t->is_counting)
            begin_text(t, text);
        if ((text->is_content || t->is_chars3) && t->at < text->len)
            count_characters(t, text, &budget);
        if (budget == 0)
            break;
        if (!t->is_chars3) {
            int rc = bpe_counter_step(&t->counter, budget);

            if (rc != 0)
                return rc;
            spend(&budget, text->len);
        }
        end_text(t);
        spend(&budget, TEXT_COST);
    }
    return t->next < t->count ? 1 : 0;
}

int64_t text_tokens_total(const struct text_tokens *t)
{
    if (t->is_chars3)
        return t->done + chars3_tokens(t->in_group);
    return t->done + (t->is_counting ? (int64_t)t->counter.tokens : 0);
}

int64_t text_tokens_characters(const struct text_tokens *t)
{
    return t->characters;
}
