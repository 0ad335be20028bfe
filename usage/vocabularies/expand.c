/* expand - turns NAME.tokens into the lookup table of usage/vocabulary.h, when xrouter is built.
 *   expand NAME.tokens OUT
 * Runs on the machine that builds; the table has that machine's byte order. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "usage/vocabulary.h"

#define INPUT_MAX (16U << 20)
#define KEYS_PER_BUCKET 4
#define SEED_MAX UINT16_MAX
#define BUCKET_KEYS_MAX 64

struct token {
    const char *bytes;
    uint64_t hash;
    uint32_t rank;
    uint32_t bucket;
    uint8_t len;
};

/* What is being built. */
struct table {
    struct vocabulary head;
    struct vocabulary_slot *slots;
    uint16_t *seeds;
    uint32_t *pairs;
    char *longs;
    uint32_t longs_len;
};

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("expand: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        fail("out of memory");
    return memory;
}

static char *read_input(const char *path, size_t *len)
{
    char *data = allocate(1, INPUT_MAX);
    FILE *file = fopen(path, "rb");

    if (file == NULL)
        fail("%s: %s", path, strerror(errno));
    *len = fread(data, 1, INPUT_MAX, file);
    if (ferror(file) || *len == 0 || *len == INPUT_MAX)
        fail("%s: cannot be read whole", path);
    (void)fclose(file); /* only read from */
    return data;
}

static struct token *parse(const char *path, const char *data, size_t len, uint32_t *count)
{
    struct token *tokens = allocate(len, sizeof(*tokens));
    size_t at = 0;
    uint32_t n = 0;

    while (at < len) {
        uint8_t token_len = (uint8_t)data[at++];

        if (token_len == 0 || token_len > len - at)
            fail("%s: token %u is cut", path, n);
        tokens[n] = (struct token){.bytes = data + at, .rank = n, .len = token_len};
        tokens[n].hash = vocabulary_hash(data + at, token_len, false);
        at += token_len;
        n++;
    }
    *count = n;
    return tokens;
}

static uint32_t *sizes; /* of the buckets: qsort's comparison has no argument for it */

/* The largest bucket first, while there is room for it. */
static int compare_buckets(const void *a, const void *b)
{
    const struct token *x = a;
    const struct token *y = b;

    if (sizes[x->bucket] != sizes[y->bucket])
        return sizes[x->bucket] > sizes[y->bucket] ? -1 : 1;
    if (x->bucket != y->bucket)
        return x->bucket < y->bucket ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static void store(struct table *t, const struct token *token, uint32_t slot)
{
    struct vocabulary_slot *s = &t->slots[slot];

    if (token->len == 2)
        t->pairs[vocabulary_load2(token->bytes)] = token->rank;
    s->tag = token->rank << 8 | token->len;
    if (token->len > VOCABULARY_INLINE_MAX) {
        s->head = token->hash;
        s->rest = t->longs_len;
        memcpy(t->longs + t->longs_len, token->bytes, token->len);
        t->longs_len += token->len;
    } else if (token->len > 8) {
        s->head = vocabulary_load8(token->bytes);
        s->rest = (uint32_t)vocabulary_load(token->bytes + 8, token->len - 8U);
    } else {
        s->head = vocabulary_load(token->bytes, token->len);
    }
}

/* Whether the seed sends the n tokens of a bucket to n free slots. */
static bool fits(const struct table *t, const struct token *tokens, uint32_t n, uint16_t seed,
                 uint32_t slots[BUCKET_KEYS_MAX])
{
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = vocabulary_slot_of(tokens[i].hash, seed, t->head.slot_count);
        if (t->slots[slots[i]].tag != 0)
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (slots[j] == slots[i])
                return false;
    }
    return true;
}

static void place_bucket(struct table *t, const struct token *tokens, uint32_t n)
{
    uint32_t slots[BUCKET_KEYS_MAX];
    uint32_t seed = 0;

    if (n > BUCKET_KEYS_MAX)
        fail("a bucket of %u tokens", n);
    while (!fits(t, tokens, n, (uint16_t)seed, slots))
        if (++seed > SEED_MAX)
            fail("no seed for the bucket of token %u", tokens[0].rank);
    t->seeds[tokens[0].bucket] = (uint16_t)seed;
    for (uint32_t i = 0; i < n; i++)
        store(t, &tokens[i], slots[i]);
}

static uint32_t aligned(size_t offset)
{
    return (uint32_t)((offset + VOCABULARY_ALIGNMENT - 1) / VOCABULARY_ALIGNMENT *
                      VOCABULARY_ALIGNMENT);
}

static void build(struct table *t, struct token *tokens, uint32_t count, size_t input_len)
{
    t->head.ranks = count;
    t->head.slot_count = count + count / 32;
    t->head.bucket_count = count / KEYS_PER_BUCKET + 1;
    t->slots = allocate(t->head.slot_count, sizeof(*t->slots));
    t->seeds = allocate(t->head.bucket_count, sizeof(*t->seeds));
    t->pairs = allocate(VOCABULARY_PAIRS, sizeof(*t->pairs));
    memset(t->pairs, 0xff, VOCABULARY_PAIRS * sizeof(*t->pairs)); /* VOCABULARY_NONE */
    t->longs = allocate(1, input_len);
    sizes = allocate(t->head.bucket_count, sizeof(*sizes));
    for (uint32_t i = 0; i < count; i++) {
        tokens[i].bucket = vocabulary_bucket_of(tokens[i].hash, t->head.bucket_count);
        sizes[tokens[i].bucket]++;
        if (tokens[i].len > t->head.longest)
            t->head.longest = tokens[i].len;
    }
    qsort(tokens, count, sizeof(*tokens), compare_buckets);
    for (uint32_t i = 0; i < count; i += sizes[tokens[i].bucket])
        place_bucket(t, tokens + i, sizes[tokens[i].bucket]);
    t->head.slots_at = aligned(sizeof(t->head));
    t->head.seeds_at = aligned(t->head.slots_at + t->head.slot_count * sizeof(*t->slots));
    t->head.pairs_at = aligned(t->head.seeds_at + t->head.bucket_count * sizeof(*t->seeds));
    t->head.long_at = aligned(t->head.pairs_at + VOCABULARY_PAIRS * sizeof(*t->pairs));
    t->head.size = t->head.long_at + t->longs_len;
}

static void write_table(const struct table *t, const char *path)
{
    char *image = allocate(1, t->head.size);
    FILE *file = fopen(path, "wb");

    if (file == NULL)
        fail("%s: %s", path, strerror(errno));
    memcpy(image, &t->head, sizeof(t->head));
    memcpy(image + t->head.slots_at, t->slots, t->head.slot_count * sizeof(*t->slots));
    memcpy(image + t->head.seeds_at, t->seeds, t->head.bucket_count * sizeof(*t->seeds));
    memcpy(image + t->head.pairs_at, t->pairs, VOCABULARY_PAIRS * sizeof(*t->pairs));
    memcpy(image + t->head.long_at, t->longs, t->longs_len);
    if (fwrite(image, 1, t->head.size, file) != t->head.size || fclose(file) != 0)
        fail("%s: %s", path, strerror(errno));
    free(image);
}

int main(int argc, char **argv)
{
    struct table table = {0};
    struct token *tokens;
    uint32_t count;
    size_t len;
    char *data;

    if (argc != 3)
        fail("usage: expand NAME.tokens OUT");
    data = read_input(argv[1], &len);
    tokens = parse(argv[1], data, len, &count);
    build(&table, tokens, count, len);
    write_table(&table, argv[2]);
    free(table.slots);
    free(table.seeds);
    free(table.pairs);
    free(table.longs);
    free(sizes);
    free(tokens);
    free(data);
    return 0;
}
