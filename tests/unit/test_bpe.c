#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/bpe_plain.h"
#include "usage/bpe.h"

static void assert_ids(enum bpe_encoding encoding, const char *text, const uint32_t *expected,
                       size_t count)
{
    uint32_t ids[64];
    size_t tokens;

    assert_int_equal(bpe_encode(encoding, text, strlen(text), ids, 64, &tokens), 0);
    assert_int_equal(tokens, count);
    assert_memory_equal(ids, expected, count * sizeof(ids[0]));
}

#define assert_encodes(encoding, text, ...)                     \
    assert_ids(encoding, text, (const uint32_t[]){__VA_ARGS__}, \
               sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* The expected numbers are tiktoken's. */
static void given_texts_when_encoded_then_tiktokens_numbers(void **state)
{
    assert_encodes(BPE_O200K, "Hello world, it's 12345!", 13225, 2375, 11, 4275, 220, 7633, 2548,
                   0);
    assert_encodes(BPE_CL100K, "Hello world, it's 12345!", 9906, 1917, 11, 433, 596, 220, 4513,
                   1774, 0);
    assert_encodes(BPE_O200K, "tiktoken is great!", 83, 8251, 2488, 382, 2212, 0);
    assert_encodes(BPE_CL100K, "tiktoken is great!", 83, 1609, 5963, 374, 2294, 0);
    assert_encodes(BPE_O200K, "antidisestablishmentarianism", 493, 129901, 376, 160388, 21203,
                   2367);
    assert_encodes(BPE_CL100K, "antidisestablishmentarianism", 519, 85342, 34500, 479, 8997, 2191);
    assert_encodes(BPE_O200K, "Съешь ещё этих мягких французских булок", 3043, 3078, 40283, 55130,
                   50592, 84452, 12312, 121124, 24361, 17853, 2533);
    assert_encodes(BPE_CL100K, "Съешь ещё этих мягких французских булок", 19871, 34694, 47067, 4929,
                   22918, 14476, 45122, 21599, 23311, 10693, 11562, 4329, 15752, 17165, 10693,
                   18034, 35682, 10589, 3865, 9136, 80112, 10693, 14391, 3865, 3114, 15088);
    assert_encodes(BPE_O200K, "人人生而自由，在尊严和权利上一律平等。", 13278, 5883, 15479, 126584,
                   27440, 41849, 40810, 5884, 18953, 7436, 94952, 14430, 3585, 11167, 788);
    assert_encodes(BPE_CL100K, "人人生而自由，在尊严和权利上一律平等。", 17792, 17792, 21990, 69636,
                   37026, 68171, 97150, 16175, 232, 3574, 98, 34208, 42081, 60632, 17905, 15120,
                   17599, 233, 50211, 50667, 1811);
    assert_encodes(BPE_O200K, "يولد جميع الناس أحراراً", 443, 179457, 29986, 48523, 1718, 31390,
                   1325, 11718);
    assert_encodes(BPE_CL100K, "يولد جميع الناس أحراراً", 14900, 73904, 13628, 83268, 10386, 14900,
                   24102, 17607, 12061, 92444, 64515, 30925, 11318, 36138, 5821, 149, 233);
    assert_encodes(BPE_O200K, "सभी मनुष्यों को गौरव", 1496, 17483, 24666, 39280, 31811, 4045, 170786,
                   2555);
    assert_encodes(BPE_CL100K, "सभी मनुष्यों को गौरव", 79468, 5619, 255, 44747, 92317, 61196, 73753,
                   5619, 115, 31584, 107, 55675, 73414, 48909, 55675, 15272, 245, 12906, 234, 45279,
                   5619, 113);
    assert_encodes(BPE_O200K, "👍🏽🎉 👩‍👩‍👧‍👦", 82514, 52622, 121, 71344,
                   231, 61138, 102, 2524, 28823, 102, 2524, 28823, 100, 2524, 28823, 99);
    assert_encodes(BPE_CL100K, "👍🏽🎉 👩‍👩‍👧‍👦", 9468, 239, 235, 9468, 237,
                   121, 9468, 236, 231, 62904, 102, 378, 235, 9468, 239, 102, 378, 235, 9468, 239,
                   100, 378, 235, 9468, 239, 99);
    assert_encodes(BPE_O200K, "if (x == NULL)\n\t\treturn -ENOMEM;\n", 366, 350, 87, 951, 3943, 446,
                   197, 1393, 533, 155415, 307);
    assert_encodes(BPE_CL100K, "if (x == NULL)\n\t\treturn -ENOMEM;\n", 333, 320, 87, 624, 1808,
                   340, 197, 862, 482, 58611, 280);
    assert_encodes(BPE_O200K, "   \n\n  a\r\n b  ", 29104, 220, 261, 370, 287, 256);
    assert_encodes(BPE_CL100K, "   \n\n  a\r\n b  ", 35033, 220, 264, 319, 293, 256);
    assert_encodes(BPE_O200K, "<|endoftext|>", 27, 91, 419, 1440, 919, 91, 29);
    assert_encodes(BPE_CL100K, "<|endoftext|>", 27, 91, 8862, 728, 428, 91, 29);
    assert_encodes(BPE_O200K, "I'LL we'Ve 'ſ camelCaseHTTPServer", 40, 6, 7454, 581, 6, 27493, 461,
                   70067, 83330, 6187, 17893, 6444);
    assert_encodes(BPE_CL100K, "I'LL we'Ve 'ſ camelCaseHTTPServer", 40, 6, 4178, 584, 6, 43712, 364,
                   129, 123, 50252, 4301, 9412, 5592);
}

static void given_special_tokens_in_text_when_encoded_then_spelled_out(void **state)
{
    static const char *const specials[] = {"<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>",
                                           "<|fim_middle|>", "<|fim_suffix|>"};

    for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++) {
        uint32_t ids[32];
        size_t tokens;

        for (int encoding = BPE_O200K; encoding <= BPE_CL100K; encoding++) {
            uint32_t ordinary = encoding == BPE_O200K ? 199998 : 100256;

            assert_int_equal(
                bpe_encode(encoding, specials[i], strlen(specials[i]), ids, 32, &tokens), 0);
            assert_true(tokens > 3);
            for (size_t k = 0; k < tokens; k++)
                assert_true(ids[k] < ordinary);
        }
    }
}

static void given_any_byte_when_looked_up_then_it_is_a_token(void **state)
{
    for (int encoding = BPE_O200K; encoding <= BPE_CL100K; encoding++) {
        for (int byte = 0; byte < 256; byte++) {
            char c = (char)byte;
            uint32_t id;

            assert_int_equal(bpe_token_lookup(encoding, &c, 1, &id), 0);
            assert_true(id < 256);
        }
    }
}

static void given_what_is_no_token_when_looked_up_then_not_found(void **state)
{
    static const char zeros[1000];
    uint32_t id;

    assert_int_equal(bpe_token_lookup(BPE_O200K, "", 0, &id), -ENOENT);
    assert_int_equal(bpe_token_lookup(BPE_O200K, "qzx", 3, &id), -ENOENT);
    assert_int_equal(bpe_token_lookup(BPE_O200K, "a\0", 2, &id), -ENOENT);
    assert_int_equal(bpe_token_lookup(BPE_O200K, "<|endoftext|>", 13, &id), -ENOENT);
    assert_int_equal(bpe_token_lookup(BPE_CL100K, zeros, sizeof(zeros), &id), -ENOENT);
}

static void given_names_when_looked_up_then_both_ways(void **state)
{
    enum bpe_encoding encoding;

    assert_int_equal(bpe_encoding_lookup("cl100k_base", &encoding), 0);
    assert_int_equal(encoding, BPE_CL100K);
    assert_string_equal(bpe_encoding_name(encoding), "cl100k_base");
    assert_int_equal(bpe_encoding_lookup("o200k_base", &encoding), 0);
    assert_string_equal(bpe_encoding_name(encoding), "o200k_base");
    assert_int_equal(bpe_encoding_lookup("p50k_base", &encoding), -ENOENT);
}

static void given_nothing_when_counted_then_no_tokens(void **state)
{
    size_t tokens = 1;

    assert_int_equal(bpe_count(BPE_O200K, NULL, 0, &tokens), 0);
    assert_int_equal(tokens, 0);
}

static void given_no_utf8_when_counted_then_refused(void **state)
{
    size_t tokens;

    assert_int_equal(bpe_count(BPE_O200K, "ok \xff", 4, &tokens), -EILSEQ);
    assert_int_equal(bpe_count(BPE_CL100K, "\xed\xa0\x80", 3, &tokens), -EILSEQ);
}

static void given_room_for_too_few_when_encoded_then_refused(void **state)
{
    uint32_t ids[3];
    size_t tokens;

    assert_int_equal(bpe_encode(BPE_O200K, "one two three four", 18, ids, 3, &tokens), -ENOSPC);
    assert_int_equal(bpe_encode(BPE_O200K, "qzxqzxqzxqzx", 12, ids, 3, &tokens), -ENOSPC);
    assert_int_equal(bpe_encode(BPE_O200K, "one two three", 13, ids, 3, &tokens), 0);
    assert_int_equal(tokens, 3);
}

/* A piece: letters of an alphabet in an order that a seed gives. */
static void fill(char *piece, size_t len, const char *alphabet, uint32_t seed)
{
    size_t letters = strlen(alphabet);

    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        piece[i] = alphabet[(seed >> 16) % letters];
    }
}

static void given_pieces_of_any_length_when_encoded_then_like_the_plain_way(void **state)
{
    static const char *const alphabets[] = {"a", "ab", "etaoinshrdlu",
                                            "abcdefghijklmnopqrstuvwxyz"};
    static const size_t lengths[] = {1,   2,   3,    11,   12,   13,   31,   32,
                                     33,  34,  63,   64,   65,   100,  127,  128,
                                     129, 500, 2047, 2048, 2049, 3000, 4096, 5000};
    const size_t max = 5000;
    char *piece = malloc(max);
    uint32_t *plain = malloc(max * sizeof(*plain));
    uint32_t *ids = malloc(max * sizeof(*ids));

    assert_true(piece != NULL && plain != NULL && ids != NULL);
    for (size_t i = 0; i < sizeof(alphabets) / sizeof(alphabets[0]); i++) {
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
            enum bpe_encoding encoding = (i + j) % 2 == 0 ? BPE_O200K : BPE_CL100K;
            size_t count, tokens;

            fill(piece, lengths[j], alphabets[i], (uint32_t)(100 * i + j));
            count = plain_encode_piece(encoding, piece, lengths[j], plain);
            assert_true(count > 0);
            assert_int_equal(bpe_encode(encoding, piece, lengths[j], ids, max, &tokens), 0);
            assert_int_equal(tokens, count);
            assert_memory_equal(ids, plain, count * sizeof(*ids));
        }
    }
    free(piece);
    free(plain);
    free(ids);
}

static void given_budgets_of_any_size_when_counted_in_slices_then_the_same(void **state)
{
    static const size_t budgets[] = {1, 2, 3, 10, 100, 2048, 10000};
    const size_t len = 20000;
    char *text = malloc(len);
    size_t whole;

    assert_non_null(text);
    fill(text, len / 2, "abc de'sFG 12\n!.", 7);
    fill(text + len / 2, len - len / 2, "xyz", 8);
    assert_int_equal(bpe_count(BPE_O200K, text, len, &whole), 0);
    for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        struct bpe_counter c;
        size_t steps = 0;
        int rc;

        bpe_counter_init(&c, BPE_O200K, text, len);
        do {
            rc = bpe_counter_step(&c, budgets[i]);
            steps++;
        } while (rc == 1);
        assert_int_equal(rc, 0);
        assert_int_equal(c.tokens, whole);
        /* A step does no more than its budget and a window. */
        assert_true(steps >= len / (budgets[i] + BPE_WINDOW));
    }
    free(text);
}

static void given_a_megabyte_of_one_letter_when_counted_then_exact(void **state)
{
    const size_t len = 1000000;
    char *text = malloc(len);
    size_t tokens;

    assert_non_null(text);
    memset(text, 'a', len);
    assert_int_equal(bpe_count(BPE_O200K, text, len, &tokens), 0);
    assert_int_equal(tokens, len / 8); /* "aaaaaaaa" */
    memset(text, ' ', len);
    assert_int_equal(bpe_count(BPE_O200K, text, len, &tokens), 0);
    assert_int_equal(tokens, len / 128 + 1); /* 128 spaces; the 64 behind them are one too */
    for (size_t i = 0; i < len; i += 2) {
        text[i] = '\xd1';
        text[i + 1] = '\x91';
    }
    assert_int_equal(bpe_count(BPE_CL100K, text, len, &tokens), 0);
    assert_int_equal(tokens, len / 2);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_texts_when_encoded_then_tiktokens_numbers),
        cmocka_unit_test(given_special_tokens_in_text_when_encoded_then_spelled_out),
        cmocka_unit_test(given_any_byte_when_looked_up_then_it_is_a_token),
        cmocka_unit_test(given_what_is_no_token_when_looked_up_then_not_found),
        cmocka_unit_test(given_names_when_looked_up_then_both_ways),
        cmocka_unit_test(given_nothing_when_counted_then_no_tokens),
        cmocka_unit_test(given_no_utf8_when_counted_then_refused),
        cmocka_unit_test(given_room_for_too_few_when_encoded_then_refused),
        cmocka_unit_test(given_pieces_of_any_length_when_encoded_then_like_the_plain_way),
        cmocka_unit_test(given_budgets_of_any_size_when_counted_in_slices_then_the_same),
        cmocka_unit_test(given_a_megabyte_of_one_letter_when_counted_then_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
