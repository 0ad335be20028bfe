#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "usage/pretokenize.h"

#define PIECES_MAX 64

struct cut {
    size_t ends[PIECES_MAX];
    size_t count;
    int rc; /* of the last call */
};

static void cut(struct cut *out, enum pretokenize_split split, const char *text, size_t len,
                size_t budget)
{
    struct pretokenizer p;

    pretokenize_init(&p, split, text, len);
    out->count = 0;
    for (;;) {
        size_t left = budget;
        const char *piece;
        size_t piece_len;

        out->rc = pretokenize_next(&p, &left, &piece, &piece_len);
        if (out->rc == -EAGAIN)
            continue;
        if (out->rc <= 0)
            return;
        assert_true(out->count < PIECES_MAX);
        assert_ptr_equal(piece, text + (out->count == 0 ? 0 : out->ends[out->count - 1]));
        out->ends[out->count++] = (size_t)(piece - text) + piece_len;
    }
}

/* expected is the pieces with a '^' between them. */
static void assert_cut(enum pretokenize_split split, const char *expected)
{
    char text[256];
    size_t ends[PIECES_MAX];
    size_t len = 0, count = 0;

    for (const char *c = expected; *c != '\0'; c++) {
        if (*c == '^')
            ends[count++] = len;
        else
            text[len++] = *c;
    }
    ends[count++] = len;
    for (size_t budget = 1; budget < 20; budget += 3) {
        struct cut got;

        cut(&got, split, text, len, budget);
        assert_int_equal(got.rc, 0);
        assert_int_equal(got.count, count);
        assert_memory_equal(got.ends, ends, count * sizeof(ends[0]));
    }
}

static void given_words_when_cut_then_one_character_in_front_belongs_to_them(void **state)
{
    for (int split = PRETOKENIZE_O200K; split <= PRETOKENIZE_CL100K; split++) {
        assert_cut(split, "Hello^ world^!");
        assert_cut(split, "a^(b^,c^\td^.^ e");
        assert_cut(split, "!!^a^ ^ b");
        assert_cut(split, "привет^ мир^—это");
        assert_cut(split, "\n^a^\r\n^b");
    }
}

static void given_contractions_when_cut_then_as_each_vocabulary_has_them(void **state)
{
    assert_cut(PRETOKENIZE_CL100K, "it^'s^ we^'LL^ I^'d^ they^'re^ x^'q");
    assert_cut(PRETOKENIZE_O200K, "it's^ we'LL^ I'd^ they're^ x^'q");
    /* A long s is an s without case. */
    assert_cut(PRETOKENIZE_CL100K, "it^'ſ^x");
    assert_cut(PRETOKENIZE_O200K, "it'ſ^x");
    /* They are found at the very end of the text, and cut ones are not. */
    assert_cut(PRETOKENIZE_CL100K, "a^'l");
    assert_cut(PRETOKENIZE_CL100K, "a^'");
}

static void given_mixed_case_when_cut_then_o200k_cuts_before_capitals(void **state)
{
    assert_cut(PRETOKENIZE_CL100K, "camelCaseABC^ XMLHttp");
    assert_cut(PRETOKENIZE_O200K, "camel^Case^ABC^ XMLHttp");
    /* A letter without case can end the lower half: the capitals behind it stay out. */
    assert_cut(PRETOKENIZE_O200K, "Aʰ^BC");
    assert_cut(PRETOKENIZE_O200K, "AʰBc");
    assert_cut(PRETOKENIZE_O200K, "ABC's^ D");
}

static void given_marks_when_cut_then_words_in_o200k_and_signs_in_cl100k(void **state)
{
    assert_cut(PRETOKENIZE_O200K, "e\u0301te\u0301^ \u0301\u0301x");
    assert_cut(PRETOKENIZE_CL100K, "e^\u0301te^\u0301^ \u0301\u0301^x");
    assert_cut(PRETOKENIZE_O200K, "\u0301^AB");
    assert_cut(PRETOKENIZE_O200K, "!\u0301's");
}

static void given_digits_when_cut_then_at_most_three(void **state)
{
    for (int split = PRETOKENIZE_O200K; split <= PRETOKENIZE_CL100K; split++) {
        assert_cut(split, "123^456^7^ ^89^a");
        assert_cut(split, "1٢३^Ⅳ²^x");
        /* Numbers of Unicode 15, which older libraries take for signs. */
        assert_cut(split, "!^\U0001D2C0\U0001D2D31^2^!");
    }
}

static void given_signs_when_cut_then_line_ends_belong_to_them(void **state)
{
    assert_cut(PRETOKENIZE_CL100K, "a^ ();\r\n\n^/^ x");
    assert_cut(PRETOKENIZE_O200K, "a^ ();\r\n\n/\n^ x");
    assert_cut(PRETOKENIZE_O200K, "http^://^a");
}

static void given_spaces_when_cut_then_the_last_goes_with_what_follows(void **state)
{
    for (int split = PRETOKENIZE_O200K; split <= PRETOKENIZE_CL100K; split++) {
        assert_cut(split, "a^   ^ b");
        assert_cut(split, "a^   ^ !");
        assert_cut(split, "a^  ^ ^1");
        assert_cut(split, "a^    ");
        assert_cut(split, "a^ \n \n^   ^ b");
        assert_cut(split, "\u00a0\u3000^\u2003x^\xc2\x85");
        /* No white space any more, though it once was. */
        assert_cut(split, " \u180e!");
        assert_cut(split, "\t^!");
    }
}

static void given_nothing_when_cut_then_no_piece(void **state)
{
    struct cut got;

    cut(&got, PRETOKENIZE_O200K, NULL, 0, 1);
    assert_int_equal(got.rc, 0);
    assert_int_equal(got.count, 0);
}

static void given_no_utf8_when_cut_then_refused(void **state)
{
    static const char *const bad[] = {"\xff",      "a\x80",         "a \xc3",
                                      "1\xe2\x82", "!\xed\xa0\x80", "\n\xf4\x90\x80\x80",
                                      "A\xc0\x80", "ab\xf0"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (int split = PRETOKENIZE_O200K; split <= PRETOKENIZE_CL100K; split++) {
            struct cut got;

            cut(&got, split, bad[i], strlen(bad[i]), 2);
            assert_int_equal(got.rc, -EILSEQ);
        }
    }
}

static void given_a_long_piece_when_cut_in_slices_then_each_stays_in_its_budget(void **state)
{
    const size_t len = 1 << 20;
    char *text = malloc(len);
    struct pretokenizer p;
    const char *piece;
    size_t piece_len;
    size_t calls = 0;
    int rc;

    assert_non_null(text);
    memset(text, 'A', len);
    pretokenize_init(&p, PRETOKENIZE_O200K, text, len);
    do {
        size_t budget = 1000;
        size_t from = p.at;

        rc = pretokenize_next(&p, &budget, &piece, &piece_len);
        assert_true(p.at - from <= 1004);
        calls++;
    } while (rc == -EAGAIN);
    assert_int_equal(rc, 1);
    assert_int_equal(piece_len, len);
    assert_in_range(calls, len / 1000, len / 1000 + 3);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_words_when_cut_then_one_character_in_front_belongs_to_them),
        cmocka_unit_test(given_contractions_when_cut_then_as_each_vocabulary_has_them),
        cmocka_unit_test(given_mixed_case_when_cut_then_o200k_cuts_before_capitals),
        cmocka_unit_test(given_marks_when_cut_then_words_in_o200k_and_signs_in_cl100k),
        cmocka_unit_test(given_digits_when_cut_then_at_most_three),
        cmocka_unit_test(given_signs_when_cut_then_line_ends_belong_to_them),
        cmocka_unit_test(given_spaces_when_cut_then_the_last_goes_with_what_follows),
        cmocka_unit_test(given_nothing_when_cut_then_no_piece),
        cmocka_unit_test(given_no_utf8_when_cut_then_refused),
        cmocka_unit_test(given_a_long_piece_when_cut_in_slices_then_each_stays_in_its_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
