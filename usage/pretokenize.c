#include "usage/pretokenize.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/utf8.h"

/* The class of a character, as a bit. The data file is made with the same numbers. */
enum {
    UPPER = 1,  /* Lu, Lt */
    LOWER = 2,  /* Ll */
    EITHER = 4, /* Lm, Lo: letters without case */
    MARK = 8,
    NUMBER = 16,
    SPACE = 32,   /* white space but for: */
    NEWLINE = 64, /* CR, LF */
    OTHER = 128,

    LETTER = UPPER | LOWER | EITHER,
};

enum phase { BEGIN, DIGITS, UPPERS, LOWERS, LETTERS, SIGNS, SIGNS_TAIL, SPACES };

#define BLOCK_SIZE 128
#define BLOCK_COUNT (0x110000 / BLOCK_SIZE)
#define DIGITS_MAX 3

/* For each block of code points the number of its classes' block, then the classes' blocks; the
 * first is that of ASCII. */
extern const uint8_t pretokenize_characters[];

static inline uint8_t class_of_ascii(char c)
{
    return pretokenize_characters[BLOCK_COUNT + (unsigned char)c];
}

static uint32_t decode(const char *text, size_t width)
{
    const unsigned char *t = (const unsigned char *)text;

    if (width == 2)
        return (t[0] & 0x1fU) << 6 | (t[1] & 0x3fU);
    if (width == 3)
        return (t[0] & 0xfU) << 12 | (t[1] & 0x3fU) << 6 | (t[2] & 0x3fU);
    return (t[0] & 7U) << 18 | (t[1] & 0x3fU) << 12 | (t[2] & 0x3fU) << 6 | (t[3] & 0x3fU);
}

/* The class of the character at an offset inside the text; 0 if it is not UTF-8. */
static inline uint8_t class_at(const struct pretokenizer *p, size_t at, size_t *width)
{
    const char *text = p->text + at;
    uint32_t code_point;

    if ((unsigned char)*text < 0x80) {
        *width = 1;
        return class_of_ascii(*text);
    }
    *width = utf8_width(text, p->len - at);
    if (*width == 0)
        return 0;
    code_point = decode(text, *width);
    return pretokenize_characters[BLOCK_COUNT +
                                  pretokenize_characters[code_point / BLOCK_SIZE] * BLOCK_SIZE +
                                  code_point % BLOCK_SIZE];
}

/* Moves on over characters of the set. Returns 0 (at is behind them), -EAGAIN (at the stop before
 * their end), -EILSEQ. */
static inline int skip(struct pretokenizer *p, unsigned set, size_t stop)
{
    size_t at = p->at;
    int rc = 0;

    while (at < p->len) {
        size_t width;
        uint8_t class;

        if (at >= stop) {
            rc = -EAGAIN;
            break;
        }
        class = class_at(p, at, &width);
        if ((class & set) == 0) {
            rc = class == 0 ? -EILSEQ : 0;
            break;
        }
        at += width;
    }
    p->at = at;
    return rc;
}

/* The same, and notes the end of the last character of marked and the begin of the last of all. */
static inline int skip_marking(struct pretokenizer *p, unsigned set, unsigned marked, size_t stop)
{
    while (p->at < p->len) {
        size_t width;
        uint8_t class;

        if (p->at >= stop)
            return -EAGAIN;
        class = class_at(p, p->at, &width);
        if ((class & set) == 0)
            return class == 0 ? -EILSEQ : 0;
        p->last = p->at;
        p->at += width;
        if ((class & marked) != 0)
            p->mark = p->at;
    }
    return 0;
}

static inline bool is_letter(char c, char lower)
{
    return (c | 0x20) == lower;
}

/* How many bytes at an offset are (?i:'s|'t|'re|'ve|'m|'ll|'d), 0 if none. */
static size_t contraction(const struct pretokenizer *p, size_t at)
{
    const char *t = p->text + at;
    size_t left = p->len - at;

    if (left < 2 || t[0] != '\'')
        return 0;
    if (is_letter(t[1], 's') || is_letter(t[1], 't') || is_letter(t[1], 'm') ||
        is_letter(t[1], 'd'))
        return 2;
    if (left < 3)
        return 0;
    if ((is_letter(t[1], 'r') || is_letter(t[1], 'v')) && is_letter(t[2], 'e'))
        return 3;
    if (is_letter(t[1], 'l') && is_letter(t[2], 'l'))
        return 3;
    /* U+017F, the long s: its upper case is S, so it matches too. */
    if (t[1] == '\xc5' && t[2] == '\xbf')
        return 3;
    return 0;
}

static void enter(struct pretokenizer *p, enum phase phase, size_t at)
{
    p->phase = phase;
    p->at = at;
    p->mark = 0;
    p->last = p->begin;
}

/* A word may have one character in front of it: [^\r\n\p{L}\p{N}]?. A mark is no letter, but in
 * o200k_base part of words like one without case. */
static int begin_piece(struct pretokenizer *p)
{
    unsigned word = p->split == PRETOKENIZE_O200K ? LETTER | MARK : LETTER;
    enum phase word_phase = p->split == PRETOKENIZE_O200K ? UPPERS : LETTERS;
    size_t at = p->begin;
    size_t width;
    uint8_t first = class_at(p, at, &width);
    uint8_t second = 0;
    char c = p->text[at];

    if (first == 0)
        return -EILSEQ;
    if ((first & word) != 0) {
        enter(p, word_phase, at);
        return 0;
    }
    if (first == NUMBER || first == NEWLINE) {
        enter(p, first == NUMBER ? DIGITS : SPACES, at);
        return 0;
    }
    at += width;
    if (at < p->len) {
        second = class_at(p, at, &width);
        if (second == 0)
            return -EILSEQ;
    }
    if ((second & word) != 0)
        enter(p, word_phase, at);
    else if ((first & (MARK | OTHER)) != 0 || (c == ' ' && (second & (MARK | OTHER)) != 0))
        enter(p, SIGNS, at);
    else
        enter(p, SPACES, p->begin);
    return 0;
}

/* \p{N}{1,3} */
static int take_digits(struct pretokenizer *p)
{
    for (int i = 0; i < DIGITS_MAX && p->at < p->len; i++) {
        size_t width;
        uint8_t class = class_at(p, p->at, &width);

        if (class == 0)
            return -EILSEQ;
        if (class != NUMBER)
            break;
        p->at += width;
    }
    return 0;
}

/* Upper case (and what has none), then lower case (and what has none): at least one of the second
 * kind, or else upper case alone. Called behind the first kind. */
static int end_uppers(struct pretokenizer *p)
{
    size_t width;

    if (p->at < p->len && class_at(p, p->at, &width) == LOWER) {
        p->phase = LOWERS;
        return 0;
    }
    /* The last one without case serves as the second kind. */
    if (p->mark != 0)
        p->at = p->mark;
    p->at += contraction(p, p->at);
    return 1;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+: through the last line end, or all but the last, which may belong to
 * what follows. Called behind all white space. */
static void end_spaces(struct pretokenizer *p)
{
    if (p->mark != 0)
        p->at = p->mark;
    else if (p->at < p->len && p->last > p->begin)
        p->at = p->last;
}

/* The line ends behind signs; o200k_base takes slashes among them too. */
static int skip_signs_tail(struct pretokenizer *p, size_t stop)
{
    for (; p->at < p->len; p->at++) {
        char c = p->text[p->at];

        if (p->at >= stop)
            return -EAGAIN;
        if (c != '\r' && c != '\n' && (c != '/' || p->split != PRETOKENIZE_O200K))
            break;
    }
    return 0;
}

/* One phase of the piece. Returns 1 (it ends at p->at), 0 (the next phase), -EAGAIN, -EILSEQ. */
static inline int run_phase(struct pretokenizer *p, size_t stop)
{
    int rc = 0;

    switch ((enum phase)p->phase) {
    case BEGIN:
        if (p->split == PRETOKENIZE_CL100K)
            p->at = p->begin + contraction(p, p->begin);
        return p->at > p->begin ? 1 : begin_piece(p);
    case DIGITS:
        rc = take_digits(p);
        return rc < 0 ? rc : 1;
    case UPPERS:
        rc = skip_marking(p, UPPER | EITHER | MARK, EITHER | MARK, stop);
        return rc < 0 ? rc : end_uppers(p);
    case LOWERS:
        rc = skip(p, LOWER | EITHER | MARK, stop);
        if (rc == 0)
            p->at += contraction(p, p->at);
        return rc < 0 ? rc : 1;
    case LETTERS:
        rc = skip(p, LETTER, stop);
        return rc < 0 ? rc : 1;
    case SIGNS:
        rc = skip(p, MARK | OTHER, stop);
        if (rc == 0)
            p->phase = SIGNS_TAIL;
        return rc;
    case SIGNS_TAIL:
        rc = skip_signs_tail(p, stop);
        return rc < 0 ? rc : 1;
    case SPACES:
        rc = skip_marking(p, SPACE | NEWLINE, NEWLINE, stop);
        if (rc == 0)
            end_spaces(p);
        return rc < 0 ? rc : 1;
    }
    return -EINVAL;
}

void pretokenize_init(struct pretokenizer *p, enum pretokenize_split split, const char *text,
                      size_t len)
{
    *p = (struct pretokenizer){.text = text, .len = len, .split = split, .phase = BEGIN};
}

int pretokenize_next(struct pretokenizer *p, size_t *budget, const char **piece, size_t *piece_len)
{
    size_t from = p->at;
    size_t stop = *budget < p->len - from ? from + *budget : p->len;
    size_t used;
    int rc;

    if (p->begin == p->len)
        return 0;
    do {
        rc = run_phase(p, stop);
    } while (rc == 0);
    used = p->at > from ? p->at - from : 1;
    *budget = used < *budget ? *budget - used : 0;
    if (rc < 0)
        return rc;
    *piece = p->text + p->begin;
    *piece_len = p->at - p->begin;
    p->begin = p->at;
    p->phase = BEGIN;
    return 1;
}
