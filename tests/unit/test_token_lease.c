#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "providers/token_lease.h"
#include "tests/unit/forked.h"

#define NOW_MS INT64_C(5000000)
#define NOW_AT_MS INT64_C(1795460000000)
#define MINUTE_MS (INT64_C(60) * 1000)
#define LEASE_MS 5000
#define HERD 8
#define HERD_CALLS 100

struct fixture {
    struct token_lease_region *r;
    int index;
    struct token out;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->r = forked_memory(token_lease_region_spec().bytes);
    token_lease_region_init(f->r);
    f->index = token_lease_find(f->r, "https://auth/", "credentials", "SCOPE");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    munmap(f->r, token_lease_region_spec().bytes);
    free(f);
    return 0;
}

/* What a caller is told after so many ms, on both clocks. */
static enum token_state get(struct fixture *f, int64_t after_ms)
{
    return token_lease_get(f->r, f->index, NOW_MS + after_ms, NOW_AT_MS + after_ms, LEASE_MS,
                           &f->out);
}

static void publish(struct fixture *f, const char *text, int64_t life_ms, int64_t after_ms)
{
    assert_int_equal(token_lease_publish(f->r, f->index, text, NOW_AT_MS + after_ms + life_ms,
                                         NOW_MS + after_ms, NOW_AT_MS + after_ms),
                     0);
}

/* A lease held by a process that no longer is. */
static int take_lease(void *arg)
{
    return (int)get(arg, 0);
}

static void given_credential_when_searched_again_then_the_same_entry(void **state)
{
    struct fixture *f = *state;
    int other = token_lease_find(f->r, "https://auth/", "credentials", "OTHER");

    assert_int_equal(f->index, 0);
    assert_int_equal(other, 1);
    assert_int_equal(token_lease_find(f->r, "https://auth/", "credentials", "SCOPE"), 0);
    assert_int_equal(token_lease_find(f->r, "https://auth/", "credentialsSCOPE", ""), 2);
}

static void given_full_table_when_another_credential_comes_then_no_space(void **state)
{
    struct fixture *f = *state;
    char scope[16];

    for (int i = 1; i < TOKEN_LEASES_MAX; i++) {
        snprintf(scope, sizeof(scope), "S%d", i);
        assert_int_equal(token_lease_find(f->r, "u", "c", scope), i);
    }
    assert_int_equal(token_lease_find(f->r, "u", "c", "one more"), -ENOSPC);
    assert_int_equal(token_lease_find(f->r, "u", "c", "S7"), 7);
}

static void given_no_token_when_many_ask_then_one_fetches_and_the_others_wait(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 0), TOKEN_FETCH);
    for (int i = 0; i < 10; i++)
        assert_int_equal(get(f, i), TOKEN_WAIT);
    publish(f, "token-1", 30 * MINUTE_MS, 100);
    assert_int_equal(get(f, 100), TOKEN_READY);
    assert_string_equal(f->out.text, "token-1");
}

static void given_token_near_its_end_when_many_ask_then_one_refreshes_and_all_use_it(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", 20 * MINUTE_MS, 0);
    assert_int_equal(get(f, 17 * MINUTE_MS - 1), TOKEN_READY); /* 60 + at most 120 s before */
    assert_int_equal(get(f, 19 * MINUTE_MS), TOKEN_REFRESH);
    assert_string_equal(f->out.text, "token-1");
    f->out.text[0] = '\0';
    assert_int_equal(get(f, 19 * MINUTE_MS), TOKEN_READY);
    assert_string_equal(f->out.text, "token-1");
    publish(f, "token-2", 20 * MINUTE_MS, 19 * MINUTE_MS);
    assert_int_equal(get(f, 19 * MINUTE_MS), TOKEN_READY);
    assert_string_equal(f->out.text, "token-2");
}

static void given_short_lived_token_when_due_then_by_shares_of_its_life(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", 10000, 0);
    assert_int_equal(get(f, 6999), TOKEN_READY); /* a tenth and at most a fifth before */
    assert_int_equal(get(f, 9000), TOKEN_REFRESH);
    publish(f, "token-2", 10000, 9000);
    assert_int_equal(get(f, 15000), TOKEN_READY);
}

static void given_expired_token_when_asked_then_not_given_out(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", 20 * MINUTE_MS, 0);
    assert_int_equal(get(f, 20 * MINUTE_MS), TOKEN_FETCH);
    assert_int_equal(get(f, 20 * MINUTE_MS), TOKEN_WAIT);
}

static void given_token_for_hours_when_thirty_minutes_passed_then_not_trusted(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", 600 * MINUTE_MS, 0);
    assert_int_equal(get(f, 26 * MINUTE_MS), TOKEN_READY);
    assert_int_equal(get(f, 30 * MINUTE_MS), TOKEN_FETCH);
}

static void given_wall_clock_that_stands_still_when_time_passes_then_not_trusted(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", 30 * MINUTE_MS, 0);
    assert_int_equal(
        token_lease_get(f->r, f->index, NOW_MS + 30 * MINUTE_MS, NOW_AT_MS, LEASE_MS, &f->out),
        TOKEN_FETCH);
}

static void given_token_expired_on_arrival_when_asked_then_no_loop_of_fetches(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", -5, 0);
    assert_int_equal(get(f, 0), TOKEN_READY);
    assert_int_equal(get(f, 30000), TOKEN_READY);
    assert_int_equal(get(f, 60000), TOKEN_FETCH);
}

static void given_fetch_failed_when_asked_then_after_the_backoff_one_tries_again(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 0), TOKEN_FETCH);
    token_lease_fail(f->r, f->index, false, NOW_MS + 10, 200);
    assert_int_equal(get(f, 209), TOKEN_WAIT);
    assert_int_equal(get(f, 210), TOKEN_FETCH);
    assert_int_equal(get(f, 210), TOKEN_WAIT);
}

static void given_credential_refused_when_asked_then_poisoned_for_a_while(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 0), TOKEN_FETCH);
    token_lease_fail(f->r, f->index, true, NOW_MS, 30000);
    assert_int_equal(get(f, 29999), TOKEN_POISONED);
    assert_int_equal(get(f, 30000), TOKEN_FETCH);
}

static void given_refresh_failed_when_old_token_is_valid_then_it_serves(void **state)
{
    struct fixture *f = *state;

    publish(f, "token-1", 20 * MINUTE_MS, 0);
    assert_int_equal(get(f, 19 * MINUTE_MS), TOKEN_REFRESH);
    token_lease_fail(f->r, f->index, true, NOW_MS + 19 * MINUTE_MS, 30000);
    assert_int_equal(get(f, 19 * MINUTE_MS + 1), TOKEN_READY);
    assert_string_equal(f->out.text, "token-1");
    assert_int_equal(get(f, 19 * MINUTE_MS + 30000), TOKEN_REFRESH);
}

static void given_token_refused_by_the_api_when_invalidated_then_fetched_anew(void **state)
{
    struct fixture *f = *state;
    uint32_t generation;

    publish(f, "token-1", 30 * MINUTE_MS, 0);
    assert_int_equal(get(f, 1), TOKEN_READY);
    generation = f->out.generation;
    token_lease_invalidate(f->r, f->index, generation);
    assert_int_equal(get(f, 2), TOKEN_FETCH);
    publish(f, "token-2", 30 * MINUTE_MS, 3);
    token_lease_invalidate(f->r, f->index, generation); /* a late 401 to the old one */
    assert_int_equal(get(f, 4), TOKEN_READY);
    assert_string_equal(f->out.text, "token-2");
    assert_int_equal(f->out.generation, generation + 1);
}

static void given_longest_token_when_published_then_whole_and_longer_refused(void **state)
{
    struct fixture *f = *state;
    char text[TOKEN_TEXT_MAX + 1];

    memset(text, 't', sizeof(text) - 1);
    text[TOKEN_TEXT_MAX] = '\0';
    assert_int_equal(
        token_lease_publish(f->r, f->index, text, NOW_AT_MS + 60000, NOW_MS, NOW_AT_MS), -EMSGSIZE);
    text[TOKEN_TEXT_MAX - 1] = '\0';
    publish(f, text, 30 * MINUTE_MS, 0);
    assert_int_equal(get(f, 1), TOKEN_READY);
    assert_string_equal(f->out.text, text);
}

static void given_token_replaced_when_memory_is_searched_then_the_old_one_is_wiped(void **state)
{
    struct fixture *f = *state;
    size_t bytes = token_lease_region_spec().bytes;

    publish(f, "first-token-text", 30 * MINUTE_MS, 0);
    assert_non_null(memmem(f->r, bytes, "first-token", 11));
    publish(f, "second-token-text", 30 * MINUTE_MS, 10);
    assert_null(memmem(f->r, bytes, "first-token", 11));
    assert_non_null(memmem(f->r, bytes, "second-token", 12));
    assert_null(memmem(f->r, bytes, "credentials", 11));
}

static void given_lease_of_another_process_when_a_late_failure_comes_then_it_stands(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(forked_wait(forked_start(take_lease, f)), TOKEN_FETCH);
    token_lease_fail(f->r, f->index, true, NOW_MS + 1, 30000); /* ours ran out long ago */
    assert_int_equal(get(f, 2), TOKEN_WAIT);
    publish(f, "token-1", 30 * MINUTE_MS, 3); /* but a late token is a token */
    assert_int_equal(get(f, 4), TOKEN_READY);
}

/* ---- processes ---- */

struct herd {
    struct fixture f;
    _Atomic bool is_started;
    _Atomic int fetches;
};

/* Its share of the calls for one credential; how many of them had to fetch, -1 if one went wrong.
 */
static int ask_for_one(struct fixture *f)
{
    int fetches = 0;

    for (int answered = 0; answered < HERD_CALLS / HERD + 1;) {
        switch (get(f, 0)) {
        case TOKEN_FETCH:
            fetches++;
            publish(f, "token-1", 30 * MINUTE_MS, 0);
            break;
        case TOKEN_READY:
            if (strcmp(f->out.text, "token-1") != 0)
                return -1;
            answered++;
            break;
        case TOKEN_WAIT:
            break;
        case TOKEN_REFRESH:
        case TOKEN_POISONED:
            return -1;
        }
    }
    return fetches;
}

static int ask_like_a_worker(void *arg)
{
    struct herd *h = arg;
    struct fixture f = h->f;

    while (!h->is_started)
        ;
    for (f.index = 0; f.index < TOKEN_LEASES_MAX; f.index++) {
        int fetches = ask_for_one(&f);

        if (fetches < 0)
            return 1;
        atomic_fetch_add(&h->fetches, fetches);
    }
    return 0;
}

static void given_hundred_callers_in_eight_processes_when_they_ask_then_one_fetch(void **state)
{
    struct fixture *f = *state;

    for (int round = 0; round < 20; round++) {
        struct herd *h = forked_memory(sizeof(*h));
        pid_t pids[HERD];

        h->f = *f;
        token_lease_region_init(f->r);
        for (int i = 0; i < HERD; i++)
            pids[i] = forked_start(ask_like_a_worker, h);
        atomic_store(&h->is_started, true);
        for (int i = 0; i < HERD; i++)
            assert_int_equal(forked_wait(pids[i]), 0);
        assert_int_equal(h->fetches, TOKEN_LEASES_MAX); /* one a credential */
        munmap(h, sizeof(*h));
    }
}

static int race_for_lease(void *arg)
{
    struct herd *h = arg;
    struct fixture f = h->f;

    while (!h->is_started)
        ;
    if (get(&f, LEASE_MS) == TOKEN_FETCH)
        atomic_fetch_add(&h->fetches, 1);
    return 0;
}

static void given_lease_holder_that_died_when_its_time_is_over_then_one_takes_it(void **state)
{
    struct fixture *f = *state;

    for (int round = 0; round < 20; round++) {
        struct herd *h = forked_memory(sizeof(*h));
        pid_t pids[HERD];

        token_lease_region_init(f->r);
        h->f = *f;
        h->f.index = token_lease_find(f->r, "u", "c", "s");
        assert_int_equal(forked_wait(forked_start(take_lease, &h->f)), TOKEN_FETCH);
        assert_int_equal(get(&h->f, LEASE_MS - 1), TOKEN_WAIT);
        for (int i = 0; i < HERD; i++)
            pids[i] = forked_start(race_for_lease, h);
        atomic_store(&h->is_started, true);
        for (int i = 0; i < HERD; i++)
            assert_int_equal(forked_wait(pids[i]), 0);
        assert_int_equal(h->fetches, 1);
        munmap(h, sizeof(*h));
    }
}

/* Tokens of one letter each, of a length that the letter tells. */
static int publish_all_the_time(void *arg)
{
    struct herd *h = arg;
    char text[TOKEN_TEXT_MAX];

    for (unsigned i = 0; !h->is_started; i++) {
        size_t len = 1 + (i % 26) * 300;

        memset(text, (int)('a' + i % 26), len);
        text[len] = '\0';
        /* Time passes fast, so that a dead storer's right is over by the next attempt. */
        if (token_lease_publish(h->f.r, h->f.index, text, NOW_AT_MS + 30 * MINUTE_MS,
                                NOW_MS + 2000 * (int64_t)i, NOW_AT_MS) != 0)
            return 1;
    }
    return 0;
}

static void given_publisher_killed_at_random_when_read_then_whole_tokens(void **state)
{
    struct fixture *f = *state;
    struct herd *h = forked_memory(sizeof(*h));
    int64_t until = clock_monotonic_ms() + 1000;
    unsigned read = 0;

    h->f = *f;
    srand(5);
    while (clock_monotonic_ms() < until) {
        pid_t pid = forked_start(publish_all_the_time, h);
        int64_t looked = clock_monotonic_us() + rand() % 2000;

        while (clock_monotonic_us() < looked) {
            size_t len;

            if (get(f, 0) != TOKEN_READY)
                continue;
            len = strlen(f->out.text);
            assert_int_equal(len, 1 + (size_t)(f->out.text[0] - 'a') * 300);
            assert_int_equal(strspn(f->out.text, (char[]){f->out.text[0], '\0'}), len);
            read++;
        }
        forked_kill_soon(pid, 100);
    }
    assert_true(read > 1000);
}

static void given_lease_holder_that_died_when_reaped_then_one_takes_it_at_once(void **state)
{
    struct fixture *f = *state;
    pid_t pid = forked_start(take_lease, f);

    assert_int_equal(forked_wait(pid), TOKEN_FETCH);
    assert_int_equal(get(f, 0), TOKEN_WAIT);
    token_lease_reap(f->r, pid);
    assert_int_equal(get(f, 0), TOKEN_FETCH);
}

static void given_another_process_died_when_reaped_then_lease_and_poison_stand(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 0), TOKEN_FETCH);
    token_lease_reap(f->r, getpid() + 1);
    assert_int_equal(get(f, 0), TOKEN_WAIT);
    token_lease_fail(f->r, f->index, true, NOW_MS, MINUTE_MS);
    token_lease_reap(f->r, getpid()); /* what the provider said holds without its listener */
    assert_int_equal(get(f, 0), TOKEN_POISONED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_credential_when_searched_again_then_the_same_entry),
        T(given_full_table_when_another_credential_comes_then_no_space),
        T(given_no_token_when_many_ask_then_one_fetches_and_the_others_wait),
        T(given_token_near_its_end_when_many_ask_then_one_refreshes_and_all_use_it),
        T(given_short_lived_token_when_due_then_by_shares_of_its_life),
        T(given_expired_token_when_asked_then_not_given_out),
        T(given_token_for_hours_when_thirty_minutes_passed_then_not_trusted),
        T(given_wall_clock_that_stands_still_when_time_passes_then_not_trusted),
        T(given_token_expired_on_arrival_when_asked_then_no_loop_of_fetches),
        T(given_fetch_failed_when_asked_then_after_the_backoff_one_tries_again),
        T(given_credential_refused_when_asked_then_poisoned_for_a_while),
        T(given_refresh_failed_when_old_token_is_valid_then_it_serves),
        T(given_token_refused_by_the_api_when_invalidated_then_fetched_anew),
        T(given_longest_token_when_published_then_whole_and_longer_refused),
        T(given_token_replaced_when_memory_is_searched_then_the_old_one_is_wiped),
        T(given_lease_of_another_process_when_a_late_failure_comes_then_it_stands),
        T(given_hundred_callers_in_eight_processes_when_they_ask_then_one_fetch),
        T(given_lease_holder_that_died_when_its_time_is_over_then_one_takes_it),
        T(given_lease_holder_that_died_when_reaped_then_one_takes_it_at_once),
        T(given_another_process_died_when_reaped_then_lease_and_poison_stand),
        T(given_publisher_killed_at_random_when_read_then_whole_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
