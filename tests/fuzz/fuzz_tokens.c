/* The pieces of valid text put together are the text; each is encoded as the plain, quadratic way
 * does it; slices come to the same count. Other bytes are refused, and only they. The first byte
 * chooses the vocabulary and how large a slice is. Text that is JSON is counted as messages and
 * tools too, and anything is looked at as an image. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"
#include "tests/unit/bpe_plain.h"
#include "usage/chat_tokens.h"

#define PLAIN_MAX 3000 /* bytes of a piece: more would only be slow */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static int is_utf8(const char *text, size_t len)
{
    for (size_t at = 0, width; at < len; at += width) {
        width = utf8_width(text + at, len - at);
        if (width == 0)
            return 0;
    }
    return 1;
}

static void check_pieces(enum bpe_encoding encoding, const char *text, size_t len,
                         const uint32_t *ids, size_t count)
{
    uint32_t *plain = malloc((PLAIN_MAX + 1) * sizeof(*plain));
    struct pretokenizer p;
    size_t done = 0;

    require(plain != NULL);
    pretokenize_init(&p, encoding == BPE_O200K ? PRETOKENIZE_O200K : PRETOKENIZE_CL100K, text, len);
    for (;;) {
        size_t budget = SIZE_MAX;
        const char *piece;
        size_t piece_len, n;
        int rc = pretokenize_next(&p, &budget, &piece, &piece_len);

        if (rc == 0)
            break;
        require(rc == 1 && piece_len > 0);
        if (piece_len > PLAIN_MAX) {
            free(plain);
            return;
        }
        n = plain_encode_piece(encoding, piece, piece_len, plain);
        require(n > 0 && n <= count - done);
        require(memcmp(plain, ids + done, n * sizeof(*ids)) == 0);
        done += n;
    }
    require(done == count);
    free(plain);
}

static void check_slices(enum bpe_encoding encoding, const char *text, size_t len, size_t budget,
                         size_t expected)
{
    struct bpe_counter c;
    int rc;

    bpe_counter_init(&c, encoding, text, len);
    do {
        rc = bpe_counter_step(&c, budget);
    } while (rc == 1);
    require(rc == 0 && c.tokens == expected);
}

static void check_chat(const char *text, size_t len)
{
    cJSON *tree = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    struct chat_tokens *t;
    size_t whole;
    int rc;

    if (tree == NULL)
        return;
    require(chat_tokens_count(&CHAT_TOKENS_O200K, tree, tree, &whole) == 0);
    require(whole >= 3);
    require(chat_tokens_new(&CHAT_TOKENS_O200K, tree, tree, &t) == 0);
    do {
        rc = chat_tokens_step(t, 10);
    } while (rc == 1);
    require(rc == 0 && chat_tokens_total(t) == whole);
    chat_tokens_free(t);
    cJSON_Delete(tree);
}

static void check_image(const char *text, size_t len)
{
    static const struct image_rules rules = {1, 1};
    bool is_known;
    size_t tokens = image_tokens(&rules, text, len, NULL, &is_known);

    require(tokens >= 2 && tokens <= 1 + IMAGE_TILES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    enum bpe_encoding encoding;
    uint32_t *ids;
    size_t count;
    int rc;

    if (size < 2)
        return 0;
    size--;
    encoding = (data[0] & 1) != 0 ? BPE_CL100K : BPE_O200K;
    ids = malloc(size * sizeof(*ids));
    require(ids != NULL);
    rc = bpe_encode(encoding, text, size, ids, size, &count);
    require(rc == (is_utf8(text, size) ? 0 : -EILSEQ));
    if (rc == 0) {
        check_pieces(encoding, text, size, ids, count);
        check_slices(encoding, text, size, 1 + (data[0] >> 1) * 20U, count);
    }
    free(ids);
    check_chat(text, size);
    check_image(text, size);
    return 0;
}
