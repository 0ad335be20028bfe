#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "providers/think.h"

static void assert_split(const char *text, const char *reasoning, const char *answer)
{
    size_t len = strlen(text);

    for (size_t cut = 0; cut <= len; cut++) {
        struct think_splitter t = {0};
        struct buf r, a;

        buf_init(&r, 1000);
        buf_init(&a, 1000);
        assert_int_equal(think_feed(&t, text, cut, &r, &a), 0);
        assert_int_equal(think_feed(&t, text + cut, len - cut, &r, &a), 0);
        assert_int_equal(think_finish(&t, &r, &a), 0);
        assert_string_equal(buf_text(&r), reasoning);
        assert_string_equal(buf_text(&a), answer);
        assert_true(think_is_over(&t));
        buf_clear(&r);
        buf_clear(&a);
    }
}

static void given_thought_first_when_split_anywhere_then_tags_are_gone(void **state)
{
    assert_split("<think>why</think>so", "why", "so");
    assert_split("<think></think>so", "", "so");
    assert_split("<think>a<b</thin</think>so<think>x</think>", "a<b</thin", "so<think>x</think>");
}

static void given_no_tag_at_the_beginning_when_split_then_all_is_answer(void **state)
{
    assert_split("so <think>why</think>", "", "so <think>why</think>");
    assert_split("<thin", "", "<thin");
    assert_split("<thinking>", "", "<thinking>");
    assert_split("", "", "");
}

static void given_thought_without_end_when_split_then_all_is_reasoning(void **state)
{
    assert_split("<think>why</thi", "why</thi", "");
    assert_split("<think><<</", "<<</", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_thought_first_when_split_anywhere_then_tags_are_gone),
        cmocka_unit_test(given_no_tag_at_the_beginning_when_split_then_all_is_answer),
        cmocka_unit_test(given_thought_without_end_when_split_then_all_is_reasoning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
