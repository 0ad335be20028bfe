/* The way back of the window that moves through a long piece: no text is known that needs it, so
 * here the windows do not overlap and most of them do. */
#define WINDOW_MARGIN 0
#include "usage/bpe.c" /* the library's own is then not linked */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/bpe_plain.h"

static void given_windows_that_disagree_when_encoded_then_like_the_plain_way(void **state)
{
    static const char *const units[] = {"internationalization", "the", "ab", "\xd0\xbe\xd0\xb9",
                                        "antidisestablishmentarianisms"};
    const size_t max = 9000;
    char *piece = malloc(max);
    uint32_t *plain = malloc(max * sizeof(*plain));
    uint32_t *ids = malloc(max * sizeof(*ids));
    unsigned ways_back = 0;

    assert_true(piece != NULL && plain != NULL && ids != NULL);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        size_t unit = strlen(units[i]);
        size_t len = max / unit * unit;
        struct bpe_counter c;
        size_t count;
        int rc;

        for (size_t at = 0; at < len; at += unit)
            memcpy(piece + at, units[i], unit);
        count = plain_encode_piece(BPE_O200K, piece, len, plain);
        bpe_counter_init(&c, BPE_O200K, piece, len);
        c.ids = ids;
        c.max = max;
        do {
            unsigned before = c.retries;

            rc = bpe_counter_step(&c, 1);
            ways_back += c.retries > before;
        } while (rc == 1);
        assert_int_equal(rc, 0);
        assert_int_equal(c.tokens, count);
        assert_memory_equal(ids, plain, count * sizeof(*ids));
    }
    assert_true(ways_back > 0);
    free(piece);
    free(plain);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_windows_that_disagree_when_encoded_then_like_the_plain_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
