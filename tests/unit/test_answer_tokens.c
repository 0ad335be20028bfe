#include <stdint.h>
#include <stdlib.h>

/* Memory that can run out; the library's own buf is then not linked, nor its answer_tokens. */
static int allocations;
static int allocations_left = INT32_MAX;

static void *realloc_or_fail(void *memory, size_t size)
{
    allocations++;
    return allocations_left-- > 0 ? realloc(memory, size) : NULL;
}
#define realloc realloc_or_fail
#include "common/buf.c"
#undef realloc
#include "usage/answer_tokens.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char names[][12] = {"o200k_base", "cl100k_base", "calibrated", "chars3"};
static const struct model_config o200k = {.tokenizer = names[0]};
static const struct model_config cl100k = {.tokenizer = names[1]};
static const struct model_config calibrated = {.tokenizer = names[2]};
static const struct model_config chars3 = {.tokenizer = names[3]};

static uint32_t seed;

static uint32_t any(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* What texts are made of: words, and all that a split looks at. */
static const char *const atoms[] = {
    "the",       "model",
    "camelCase", "HTTP",
    "I'll",      "don't",
    "'s",        "'",
    "модель",    "Ответ",
    "ЁЖ",        "слово",
    "文字",      "。",
    "，",        "नमस्ते",
    "e\u0301",   "\u0301",
    "ǅ",         "ʰ",
    "123",       "4567",
    "٣",         "½",
    ".",         ",",
    "//",        "/",
    "->",        "—",
    "«",         "»",
    "\n",        "\n\n",
    "\r\n",      "\t",
    "  ",        "   ",
    "\u00a0",    "\u3000",
    "\u2003",    "\xc2\x85",
    "\ufeff",    "\u180e",
    "😀",         "👩‍👩‍👧",
    "\x7f",      "\x01",
};
#define ATOM_COUNT (sizeof(atoms) / sizeof(atoms[0]))

/* len bytes or a few more, with a space after some of the atoms. */
static void mixed_text(struct buf *text, size_t len)
{
    buf_init(text, SIZE_MAX);
    while (text->len < len) {
        buf_str(text, atoms[any(ATOM_COUNT)]);
        if (any(3) > 0)
            buf_byte(text, ' ');
    }
    assert_int_equal(text->err, 0);
}

static void add_cut_anywhere(struct answer_tokens *a, const char *text, size_t len, size_t longest)
{
    while (len > 0) {
        size_t n = 1 + any((uint32_t)longest);

        n = n < len ? n : len;
        answer_tokens_add(a, text, n);
        text += n;
        len -= n;
    }
}

static int64_t count_in_pieces(const struct model_config *model, const char *text, size_t len,
                               size_t longest)
{
    struct answer_tokens a;
    int64_t tokens;

    answer_tokens_init(&a, model);
    add_cut_anywhere(&a, text, len, longest);
    tokens = answer_tokens_count(&a, CALIBRATION_ONE);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), tokens);
    answer_tokens_clear(&a);
    return tokens;
}

static int64_t count_whole(enum bpe_encoding encoding, const char *text, size_t len)
{
    size_t tokens;

    assert_int_equal(bpe_count(encoding, text, len, &tokens), 0);
    return (int64_t)tokens;
}

static void given_nothing_when_counted_then_no_token(void **state)
{
    struct answer_tokens a;

    answer_tokens_init(&a, &o200k);
    assert_int_equal(answer_tokens_guess(&a), 0);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 0);
    answer_tokens_add(&a, NULL, 0);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 0);
    answer_tokens_clear(&a);
}

static void given_a_short_text_when_cut_anywhere_then_the_count_of_the_whole(void **state)
{
    static const char text[] = "Съешь ещё этих мягких французских булок, it's 12345! "
                               "👩‍👩‍👧\n";
    const size_t len = sizeof(text) - 1;

    for (size_t cut = 0; cut <= len; cut++) {
        struct answer_tokens a;

        answer_tokens_init(&a, &o200k);
        answer_tokens_add(&a, text, cut);
        answer_tokens_add(&a, text + cut, len - cut);
        assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE),
                         count_whole(BPE_O200K, text, len));
        answer_tokens_clear(&a);
    }
}

static void given_texts_of_many_windows_when_cut_anywhere_then_the_count_of_the_whole(void **state)
{
    static const size_t longest[] = {1, 7, 40, 3000, 50000};

    seed = 1;
    for (int i = 0; i < 60; i++) {
        bool is_o200k = i % 2 == 0;
        struct buf text;

        mixed_text(&text, any(4 * ANSWER_TOKENS_WINDOW));
        assert_int_equal(
            count_in_pieces(is_o200k ? &o200k : &cl100k, text.data, text.len, longest[i % 5]),
            count_whole(is_o200k ? BPE_O200K : BPE_CL100K, text.data, text.len));
        buf_clear(&text);
    }
}

static void given_a_text_of_a_window_when_one_byte_more_then_the_count_of_the_whole(void **state)
{
    struct buf text;

    seed = 2;
    mixed_text(&text, ANSWER_TOKENS_WINDOW + 8);
    for (size_t len = ANSWER_TOKENS_WINDOW - 5; len < ANSWER_TOKENS_WINDOW + 8; len++) {
        size_t whole = utf8_cut(text.data, len);

        assert_int_equal(count_in_pieces(&o200k, text.data, whole, 100),
                         count_whole(BPE_O200K, text.data, whole));
    }
    buf_clear(&text);
}

static void given_lines_without_a_space_when_counted_then_the_count_of_the_whole(void **state)
{
    struct buf text;

    seed = 3;
    buf_init(&text, SIZE_MAX);
    while (text.len < 3 * ANSWER_TOKENS_WINDOW) {
        buf_str(&text, any(20) == 0 ? "\n" : any(2) == 0 ? "文字" : "、データ。");
        if (any(100) == 0)
            buf_str(&text, "/\n/");
    }
    assert_int_equal(text.err, 0);
    assert_int_equal(count_in_pieces(&o200k, text.data, text.len, 50),
                     count_whole(BPE_O200K, text.data, text.len));
    assert_int_equal(count_in_pieces(&cl100k, text.data, text.len, 50),
                     count_whole(BPE_CL100K, text.data, text.len));
    buf_clear(&text);
}

static void given_no_place_to_cut_when_counted_then_a_token_a_window_off(void **state)
{
    static const char *const units[] = {"文字", "a", "😀", "d2Vp"};
    const int64_t windows = 5;
    struct buf text;

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        int64_t in_pieces, whole;

        buf_init(&text, SIZE_MAX);
        while (text.len < (size_t)windows * ANSWER_TOKENS_WINDOW)
            buf_str(&text, units[i]);
        assert_int_equal(text.err, 0);
        in_pieces = count_in_pieces(&o200k, text.data, text.len, 30);
        whole = count_whole(BPE_O200K, text.data, text.len);
        assert_true(in_pieces >= whole - windows && in_pieces <= whole + windows);
        buf_clear(&text);
    }
}

/* All texts of a few characters of every kind: if a place is a boundary, the pieces of both parts
 * are those of the whole. */

static const char *const kinds[] = {"a", "A",  "\u0434", "\u0301", "7",  "'",      "s",
                                    "/", "\n", "\r",     " ",      "\t", "\u00a0", "\u3000"};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))
#define CHARACTERS 5
#define ENDS_MAX (4 * CHARACTERS)

/* Adds the ends of the pieces, from base on, to a set. */
static uint32_t piece_ends(enum pretokenize_split split, const char *text, size_t len, size_t base)
{
    struct pretokenizer p;
    uint32_t ends = 0;

    pretokenize_init(&p, split, text, len);
    for (;;) {
        size_t budget = SIZE_MAX;
        const char *piece;
        size_t piece_len;
        int rc = pretokenize_next(&p, &budget, &piece, &piece_len);

        if (rc == 0)
            return ends;
        assert_int_equal(rc, 1);
        base += piece_len;
        ends |= 1U << base;
    }
}

static size_t check_boundaries(enum pretokenize_split split, const char *text, size_t len)
{
    uint32_t whole = piece_ends(split, text, len, 0);
    size_t found = 0;

    for (size_t at = 1; at < len; at++) {
        if (utf8_is_continuation(text[at]) || !is_boundary(text, at))
            continue;
        assert_int_equal(
            piece_ends(split, text, at, 0) | piece_ends(split, text + at, len - at, at), whole);
        found++;
    }
    return found;
}

static void given_any_few_characters_when_cut_at_a_boundary_then_the_same_pieces(void **state)
{
    size_t texts = 1, found = 0;

    _Static_assert(ENDS_MAX < 32, "a set in a word");
    for (int i = 0; i < CHARACTERS; i++)
        texts *= KIND_COUNT;
    for (size_t i = 0; i < texts; i++) {
        char memory[ENDS_MAX + 1];
        struct buf text;
        size_t rest = i;

        buf_init_fixed(&text, memory, sizeof(memory));
        for (int k = 0; k < CHARACTERS; k++, rest /= KIND_COUNT)
            buf_str(&text, kinds[rest % KIND_COUNT]);
        assert_int_equal(text.err, 0);
        found += check_boundaries(PRETOKENIZE_O200K, text.data, text.len);
        found += check_boundaries(PRETOKENIZE_CL100K, text.data, text.len);
    }
    assert_true(found > texts / 2);
}

static void given_any_white_space_when_asked_then_it_is_not_solid(void **state)
{
    static const uint32_t spaces[] = {0x9,    0xb,    0xc,    0x20,   0x85,   0xa0,
                                      0x1680, 0x2000, 0x200a, 0x2028, 0x2029, 0x202f,
                                      0x205f, 0x3000, 0xa,    0xd};

    for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++) {
        uint32_t c = spaces[i];

        assert_false(is_solid((unsigned char)(c < 0x80    ? c
                                              : c < 0x800 ? 0xc0 | c >> 6
                                                          : 0xe0 | c >> 12)));
    }
    assert_true(is_solid('a') && is_solid(0xd0) && is_solid(0xe4) && is_solid(0xf0));
}

/* ---- the other tokenizers ---- */

static void given_chars3_when_counted_then_a_third_of_the_code_points_and_nothing_kept(void **state)
{
    struct answer_tokens a;
    struct buf text;

    seed = 4;
    mixed_text(&text, 2 * ANSWER_TOKENS_WINDOW);
    for (size_t len = 0; len < 40; len++) {
        size_t code_points = 0;

        for (size_t i = 0; i < len; i++)
            code_points += ((unsigned char)text.data[i] & 0xc0) != 0x80;
        assert_int_equal(count_in_pieces(&chars3, text.data, len, 3), (code_points + 2) / 3);
    }
    allocations = 0;
    answer_tokens_init(&a, &chars3);
    add_cut_anywhere(&a, text.data, text.len, 100);
    assert_int_equal(allocations, 0);
    assert_int_equal(answer_tokens_guess(&a), answer_tokens_count(&a, 1));
    answer_tokens_clear(&a);
    buf_clear(&text);
}

static void given_calibrated_when_counted_then_o200k_times_the_ratio(void **state)
{
    struct answer_tokens a;
    struct buf text;
    int64_t whole;

    seed = 5;
    mixed_text(&text, 3 * ANSWER_TOKENS_WINDOW);
    whole = count_whole(BPE_O200K, text.data, text.len);
    answer_tokens_init(&a, &calibrated);
    add_cut_anywhere(&a, text.data, text.len, 100);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), whole);
    assert_int_equal(answer_tokens_count(&a, 1250000), (whole * 5 + 3) / 4);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE / 2), (whole + 1) / 2);
    answer_tokens_clear(&a);
    buf_clear(&text);
}

static void given_a_vocabulary_when_guessed_then_a_quarter_of_the_code_points(void **state)
{
    struct answer_tokens a;

    answer_tokens_init(&a, &cl100k);
    answer_tokens_add(&a, "ab\xd0", 3);
    assert_int_equal(answer_tokens_guess(&a), 1);
    answer_tokens_add(&a, "\x94\xd0\x94", 3);
    assert_int_equal(answer_tokens_guess(&a), 1);
    answer_tokens_add(&a, "e", 1);
    assert_int_equal(answer_tokens_guess(&a), 2);
    answer_tokens_clear(&a);
}

/* ---- the next answer, memory, broken text ---- */

static void given_an_answer_when_reset_then_only_the_next_one_counts(void **state)
{
    struct answer_tokens a;
    struct buf text;

    seed = 6;
    mixed_text(&text, ANSWER_TOKENS_WINDOW + 100);
    answer_tokens_init(&a, &o200k);
    answer_tokens_add(&a, text.data, text.len);
    answer_tokens_reset(&a);
    assert_int_equal(answer_tokens_guess(&a), 0);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 0);
    answer_tokens_add(&a, "Hello world", 11);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 2);
    answer_tokens_clear(&a);
    buf_clear(&text);
}

static void given_short_answers_when_kept_then_little_memory(void **state)
{
    struct answer_tokens a;

    answer_tokens_init(&a, &o200k);
    assert_null(a.text.base);
    answer_tokens_add(&a, "Hello", 5);
    assert_true(a.text.cap <= 256);
    for (int i = 0; i < 100; i++)
        answer_tokens_add(&a, " world", 6);
    assert_true(a.text.cap <= 1024);
    for (int i = 0; i < 100000; i++)
        answer_tokens_add(&a, " world", 6);
    assert_true(a.text.cap <= ANSWER_TOKENS_WINDOW + 1);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 1 + 100 + 100000);
    answer_tokens_clear(&a);
}

static void given_no_memory_when_pieces_come_then_these_are_guessed(void **state)
{
    struct answer_tokens a;

    answer_tokens_init(&a, &calibrated);
    allocations_left = 0;
    answer_tokens_add(&a, "Привет мир", 19); /* ten characters */
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 3);
    allocations_left = INT32_MAX;
    answer_tokens_add(&a, "Hello world", 11); /* two tokens */
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 2 + 3);
    assert_int_equal(answer_tokens_count(&a, 2 * CALIBRATION_ONE), 4 + 3);
    assert_int_equal(answer_tokens_guess(&a), (21 + 3) / 4);
    answer_tokens_reset(&a);
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 0);
    answer_tokens_clear(&a);
}

static void given_no_memory_to_grow_when_pieces_come_then_what_is_kept_is_counted(void **state)
{
    struct answer_tokens a;

    answer_tokens_init(&a, &o200k);
    answer_tokens_add(&a, "Hello", 5);
    allocations_left = 0;
    for (int i = 0; i < 100; i++)
        answer_tokens_add(&a, " world", 6);
    allocations_left = INT32_MAX;
    /* 41 of them fit beside the first word. */
    assert_int_equal(answer_tokens_count(&a, CALIBRATION_ONE), 1 + 41 + (59 * 6 + 3) / 4);
    answer_tokens_clear(&a);
}

static void given_bytes_that_are_no_utf8_when_counted_then_a_token_each(void **state)
{
    static const char text[] = "Hello\xff\xfe world\xed\xa0\x80 and\xd0";

    assert_int_equal(count_in_pieces(&o200k, text, sizeof(text) - 1, 4), 1 + 2 + 1 + 3 + 1 + 1);
    /* The character that ends here may go on in the next piece. */
    assert_int_equal(count_in_pieces(&o200k, "Hello \xd0", 7, 100), 1 + 1 + 1);
    assert_int_equal(count_in_pieces(&o200k, "Hello \xd0\xbc", 8, 100),
                     count_whole(BPE_O200K, "Hello \xd0\xbc", 8));
}

static void given_many_bytes_that_are_no_utf8_when_counted_then_all_are_and_soon(void **state)
{
    const size_t len = 10 * ANSWER_TOKENS_WINDOW;
    char *bytes = malloc(len);

    assert_non_null(bytes);
    memset(bytes, 0x80, len);
    assert_int_equal(count_in_pieces(&o200k, bytes, len, 1000), len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = "abc \xff"[i % 5];
    assert_int_equal(count_in_pieces(&cl100k, bytes, len, 1000),
                     (int64_t)(len / 5) * (count_whole(BPE_CL100K, "abc ", 4) + 1) +
                         count_whole(BPE_CL100K, bytes, len % 5));
    seed = 7;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)any(256);
    assert_true(count_in_pieces(&cl100k, bytes, len, 1000) > 0);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_nothing_when_counted_then_no_token),
        cmocka_unit_test(given_a_short_text_when_cut_anywhere_then_the_count_of_the_whole),
        cmocka_unit_test(given_texts_of_many_windows_when_cut_anywhere_then_the_count_of_the_whole),
        cmocka_unit_test(given_a_text_of_a_window_when_one_byte_more_then_the_count_of_the_whole),
        cmocka_unit_test(given_lines_without_a_space_when_counted_then_the_count_of_the_whole),
        cmocka_unit_test(given_no_place_to_cut_when_counted_then_a_token_a_window_off),
        cmocka_unit_test(given_any_few_characters_when_cut_at_a_boundary_then_the_same_pieces),
        cmocka_unit_test(given_any_white_space_when_asked_then_it_is_not_solid),
        cmocka_unit_test(
            given_chars3_when_counted_then_a_third_of_the_code_points_and_nothing_kept),
        cmocka_unit_test(given_calibrated_when_counted_then_o200k_times_the_ratio),
        cmocka_unit_test(given_a_vocabulary_when_guessed_then_a_quarter_of_the_code_points),
        cmocka_unit_test(given_an_answer_when_reset_then_only_the_next_one_counts),
        cmocka_unit_test(given_short_answers_when_kept_then_little_memory),
        cmocka_unit_test(given_no_memory_when_pieces_come_then_these_are_guessed),
        cmocka_unit_test(given_no_memory_to_grow_when_pieces_come_then_what_is_kept_is_counted),
        cmocka_unit_test(given_bytes_that_are_no_utf8_when_counted_then_a_token_each),
        cmocka_unit_test(given_many_bytes_that_are_no_utf8_when_counted_then_all_are_and_soon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
