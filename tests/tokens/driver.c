/* The tokenizer at the end of a pipe, for the scripts that hold it against the original.
 *   driver encode ENCODING        texts on stdin, each behind its length (4 bytes, little-endian);
 *                                 for each on stdout the count and the numbers, 4 bytes each
 *   driver time ENCODING ROUNDS   one text on stdin; prints its tokens and the best nanoseconds
 *                                 that counting it took */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "usage/bpe.h"

#define INPUT_MAX ((size_t)256 << 20)

static int fail(const char *what, int rc)
{
    fprintf(stderr, "driver: %s: %s\n", what, strerror(-rc));
    return 1;
}

/* Counted in slices of several sizes, the text must come to the same. */
static int check_slices(enum bpe_encoding encoding, const char *text, size_t len, size_t expected)
{
    static const size_t budgets[] = {1, 7, 1000, 100000};

    for (size_t i = len > 100000 ? 2 : 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        struct bpe_counter c;
        int rc;

        bpe_counter_init(&c, encoding, text, len);
        do {
            rc = bpe_counter_step(&c, budgets[i]);
        } while (rc == 1);
        if (rc < 0 || c.tokens != expected) {
            fprintf(stderr, "driver: %zu tokens in slices of %zu, %zu at once\n", c.tokens,
                    budgets[i], expected);
            return -EINVAL;
        }
    }
    return 0;
}

static int encode_one(enum bpe_encoding encoding, const char *text, uint32_t len)
{
    uint32_t *out = malloc(((size_t)len + 1) * sizeof(*out));
    size_t count;
    int rc = -ENOMEM;

    if (out == NULL)
        return rc;
    rc = bpe_encode(encoding, text, len, out + 1, len, &count);
    if (rc == 0)
        rc = check_slices(encoding, text, len, count);
    if (rc == 0) {
        out[0] = (uint32_t)count;
        if (fwrite(out, sizeof(*out), count + 1, stdout) != count + 1)
            rc = -EIO;
    }
    free(out);
    return rc;
}

static int encode_all(enum bpe_encoding encoding, const char *input, size_t size)
{
    size_t at = 0;

    while (at < size) {
        uint32_t len;
        int rc;

        if (size - at < sizeof(len))
            return -EINVAL;
        memcpy(&len, input + at, sizeof(len));
        at += sizeof(len);
        if (len > size - at)
            return -EINVAL;
        rc = encode_one(encoding, input + at, len);
        if (rc < 0)
            return rc;
        at += len;
    }
    return fflush(stdout) == 0 ? 0 : -EIO;
}

static int time_text(enum bpe_encoding encoding, const char *text, size_t len, long rounds)
{
    int64_t best = INT64_MAX;
    size_t tokens = 0;

    for (long i = 0; i < rounds; i++) {
        struct timespec began, ended;
        int64_t taken;
        int rc;

        clock_gettime(CLOCK_MONOTONIC, &began);
        rc = bpe_count(encoding, text, len, &tokens);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        if (rc < 0)
            return rc;
        taken = (ended.tv_sec - began.tv_sec) * INT64_C(1000000000) + ended.tv_nsec - began.tv_nsec;
        if (taken < best)
            best = taken;
    }
    printf("%zu %lld\n", tokens, (long long)best);
    return 0;
}

int main(int argc, char **argv)
{
    enum bpe_encoding encoding;
    char *input;
    size_t size;
    int rc;

    if (argc < 3 || bpe_encoding_lookup(argv[2], &encoding) < 0)
        return fail("driver encode|time ENCODING [ROUNDS]", -EINVAL);
    input = malloc(INPUT_MAX);
    if (input == NULL)
        return fail("stdin", -ENOMEM);
    size = fread(input, 1, INPUT_MAX, stdin);
    rc = strcmp(argv[1], "time") == 0
             ? time_text(encoding, input, size, argc > 3 ? strtol(argv[3], NULL, 10) : 1)
             : encode_all(encoding, input, size);
    free(input);
    return rc < 0 ? fail(argv[1], rc) : 0;
}
