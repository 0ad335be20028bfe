#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/container.h"
#include "gateway/counting.h"
#include "usage/bpe.h"

#define LONG_BYTES (10 * COUNTING_SLICE)

static char id[] = "m", tokenizer[] = "o200k_base";
static const struct model_config model = {.id = id, .tokenizer = tokenizer};

struct prompt {
    struct counting_job job;
    cJSON *input;
    int told; /* how often */
    int rc;
    unsigned turn; /* when */
    struct counting *counting;
    struct prompt *cancels; /* another one, from the callback */
};

static unsigned turns;

static void on_counted(struct counting_job *job, int rc)
{
    struct prompt *p = container_of(job, struct prompt, job);

    p->told++;
    p->rc = rc;
    p->turn = turns;
    if (p->cancels != NULL)
        counting_cancel(p->counting, &p->cancels->job);
}

static void prompt_init(struct prompt *p, struct counting *c, size_t bytes)
{
    char *text = malloc(bytes + 1);

    assert_non_null(text);
    for (size_t i = 0; i < bytes; i++)
        text[i] = "one two three "[i % 14];
    text[bytes] = '\0';
    *p = (struct prompt){.counting = c, .job = {.on_counted = on_counted}};
    p->input = cJSON_CreateString(text);
    free(text);
    assert_non_null(p->input);
    assert_int_equal(prompt_tokens_new_text(&model, p->input, &p->job.count), 0);
}

static void prompt_clear(struct prompt *p)
{
    prompt_tokens_free(p->job.count);
    cJSON_Delete(p->input);
}

static void run(struct counting *c)
{
    turns = 0;
    do {
        turns++;
    } while (counting_turn(c));
}

static int64_t tokens_of(const struct prompt *p)
{
    struct token_estimate e;

    prompt_tokens_result(p->job.count, 1, &e);
    return e.tokens;
}

static void given_a_short_prompt_when_started_then_it_is_counted_at_once(void **state)
{
    struct counting c = {0};
    struct prompt p;

    prompt_init(&p, &c, 140);
    assert_int_equal(counting_start(&c, &p.job), 0);
    assert_false(counting_turn(&c));
    assert_int_equal(p.told, 0);
    assert_int_equal(tokens_of(&p), 31); /* 10 times three words, and the last space */
    prompt_clear(&p);
}

static void given_a_long_prompt_when_counted_then_it_takes_turns_and_is_told_once(void **state)
{
    struct counting c = {0};
    struct prompt p;
    size_t whole;

    prompt_init(&p, &c, LONG_BYTES);
    assert_int_equal(counting_start(&c, &p.job), 1);
    assert_true(p.job.is_waiting);
    run(&c);
    assert_int_equal(p.told, 1);
    assert_int_equal(p.rc, 0);
    assert_in_range(p.turn, 8, 11);
    assert_false(p.job.is_waiting);
    assert_int_equal(bpe_count(BPE_O200K, p.input->valuestring, LONG_BYTES, &whole), 0);
    assert_int_equal(tokens_of(&p), whole);
    prompt_clear(&p);
}

static void given_two_prompts_when_counted_then_they_take_turns(void **state)
{
    struct counting c = {0};
    struct prompt longer, shorter;

    prompt_init(&longer, &c, 4 * LONG_BYTES);
    prompt_init(&shorter, &c, COUNTING_SLICE * 2);
    assert_int_equal(counting_start(&c, &longer.job), 1);
    assert_int_equal(counting_start(&c, &shorter.job), 1);
    run(&c);
    assert_int_equal(longer.told, 1);
    assert_int_equal(shorter.told, 1);
    assert_in_range(shorter.turn, 1, 6); /* it did not wait for the other one's end */
    assert_true(longer.turn > 30);
    prompt_clear(&longer);
    prompt_clear(&shorter);
}

static void given_a_cancelled_prompt_when_turns_pass_then_nothing_is_told(void **state)
{
    struct counting c = {0};
    struct prompt first, middle, last;

    prompt_init(&first, &c, LONG_BYTES);
    prompt_init(&middle, &c, LONG_BYTES);
    prompt_init(&last, &c, LONG_BYTES);
    assert_int_equal(counting_start(&c, &first.job), 1);
    assert_int_equal(counting_start(&c, &middle.job), 1);
    assert_int_equal(counting_start(&c, &last.job), 1);
    counting_cancel(&c, &middle.job);
    counting_cancel(&c, &middle.job); /* not waiting is fine */
    first.cancels = &last;
    run(&c);
    assert_int_equal(first.told, 1);
    assert_int_equal(middle.told, 0);
    assert_int_equal(last.told, 0);
    prompt_clear(&first);
    prompt_clear(&middle);
    prompt_clear(&last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_short_prompt_when_started_then_it_is_counted_at_once),
        cmocka_unit_test(given_a_long_prompt_when_counted_then_it_takes_turns_and_is_told_once),
        cmocka_unit_test(given_two_prompts_when_counted_then_they_take_turns),
        cmocka_unit_test(given_a_cancelled_prompt_when_turns_pass_then_nothing_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
