#include <errno.h>
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "providers/addresses.h"
#include "tests/unit/forked.h"

#define STRESS_MS 500

static int setup(void **state)
{
    *state = forked_memory(addresses_region_spec().bytes);
    addresses_region_init(*state);
    return 0;
}

static int teardown(void **state)
{
    munmap(*state, addresses_region_spec().bytes);
    return 0;
}

static struct address_list list_of(const char *a, const char *b, int64_t looked_up_ms)
{
    struct address_list list = {.looked_up_ms = looked_up_ms};

    if (a != NULL)
        strcpy(list.text[list.count++], a);
    if (b != NULL)
        strcpy(list.text[list.count++], b);
    return list;
}

static void given_host_nobody_registered_when_looked_up_then_not_found(void **state)
{
    struct address_list list;

    assert_int_equal(addresses_lookup(*state, "api.giga.chat", &list), -ENOENT);
    assert_null(addresses_host(*state, 0));
}

static void given_registered_host_when_not_resolved_yet_then_again_later(void **state)
{
    struct address_list list;

    assert_int_equal(addresses_register(*state, "api.giga.chat"), 0);
    assert_string_equal(addresses_host(*state, 0), "api.giga.chat");
    assert_null(addresses_host(*state, 1));
    assert_int_equal(addresses_lookup(*state, "api.giga.chat", &list), -EAGAIN);
}

static void given_host_when_registered_twice_then_there_once_whatever_its_case(void **state)
{
    assert_int_equal(addresses_register(*state, "api.giga.chat"), 0);
    assert_int_equal(addresses_register(*state, "API.giga.chat"), 0);
    assert_null(addresses_host(*state, 1));
}

static void given_addresses_when_published_then_read_in_their_order(void **state)
{
    struct address_list list = list_of("192.0.2.1", "2001:db8::1", 50), got;

    addresses_register(*state, "other");
    addresses_register(*state, "api.giga.chat");
    addresses_publish(*state, 1, &list);
    assert_int_equal(addresses_lookup(*state, "api.giga.chat", &got), 0);
    assert_int_equal(got.count, 2);
    assert_string_equal(got.text[0], "192.0.2.1");
    assert_string_equal(got.text[1], "2001:db8::1");
    assert_int_equal(got.looked_up_ms, 50);
    assert_int_equal(got.error, 0);
    assert_int_equal(addresses_lookup(*state, "other", &got), -EAGAIN);
}

static void given_known_addresses_when_a_lookup_fails_then_they_stay(void **state)
{
    struct address_list list = list_of("192.0.2.1", NULL, 50), got;
    struct address_list failed = {.looked_up_ms = 90, .error = EAI_AGAIN};

    addresses_register(*state, "h");
    addresses_publish(*state, 0, &list);
    addresses_publish(*state, 0, &failed);
    assert_int_equal(addresses_lookup(*state, "h", &got), 0);
    assert_int_equal(got.count, 1);
    assert_string_equal(got.text[0], "192.0.2.1");
    assert_int_equal(got.looked_up_ms, 90);
    assert_int_equal(got.error, EAI_AGAIN);
    list.looked_up_ms = 100;
    addresses_publish(*state, 0, &list);
    assert_int_equal(addresses_lookup(*state, "h", &got), 0);
    assert_int_equal(got.error, 0);
}

static void given_no_addresses_when_a_lookup_fails_then_known_as_failed(void **state)
{
    struct address_list failed = {.looked_up_ms = 90, .error = EAI_NONAME}, got;

    addresses_register(*state, "h");
    addresses_publish(*state, 0, &failed);
    assert_int_equal(addresses_lookup(*state, "h", &got), 0);
    assert_int_equal(got.count, 0);
    assert_int_equal(got.error, EAI_NONAME);
}

static void given_full_table_when_one_more_is_registered_then_no_space(void **state)
{
    char host[ADDRESS_HOST_BYTES + 1];

    for (int i = 0; i < ADDRESSES_HOSTS_MAX; i++) {
        snprintf(host, sizeof(host), "host-%d", i);
        assert_int_equal(addresses_register(*state, host), 0);
    }
    assert_int_equal(addresses_register(*state, "one more"), -ENOSPC);
    assert_int_equal(addresses_register(*state, "host-3"), 0);
    memset(host, 'h', ADDRESS_HOST_BYTES);
    host[ADDRESS_HOST_BYTES] = '\0';
    assert_int_equal(addresses_register(*state, host), -ENAMETOOLONG);
}

static void given_index_past_the_last_when_published_then_ignored(void **state)
{
    struct address_list list = list_of("192.0.2.1", NULL, 50), got;

    addresses_publish(*state, 0, &list);
    addresses_register(*state, "h");
    assert_int_equal(addresses_lookup(*state, "h", &got), -EAGAIN);
}

struct stress {
    struct addresses_region *r;
    _Atomic bool is_over;
    unsigned n;
};

static int publish_all_the_time(void *arg)
{
    struct stress *s = arg;

    while (!s->is_over) {
        struct address_list list = {.count = ADDRESSES_PER_HOST, .looked_up_ms = 1 + s->n};

        for (size_t i = 0; i < ADDRESSES_PER_HOST; i++)
            snprintf(list.text[i], ADDRESS_TEXT_BYTES, "%040u", s->n);
        addresses_publish(s->r, 0, &list);
        s->n++;
    }
    return 0;
}

static void given_helper_killed_at_random_when_looked_up_then_whole_lists(void **state)
{
    struct stress *s = forked_memory(sizeof(*s));
    int64_t until = clock_monotonic_ms() + STRESS_MS;

    s->r = *state;
    srand(4);
    addresses_register(s->r, "h");
    while (clock_monotonic_ms() < until) {
        pid_t pid = forked_start(publish_all_the_time, s);
        int64_t looked = clock_monotonic_us() + rand() % 2000;
        struct address_list got;

        while (clock_monotonic_us() < looked) {
            if (addresses_lookup(s->r, "h", &got) != 0)
                continue;
            for (size_t i = 0; i < ADDRESSES_PER_HOST; i++)
                assert_int_equal(strtol(got.text[i], NULL, 10) + 1, got.looked_up_ms);
        }
        forked_kill_soon(pid, 100);
    }
    assert_true(s->n > 1000);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_host_nobody_registered_when_looked_up_then_not_found),
        T(given_registered_host_when_not_resolved_yet_then_again_later),
        T(given_host_when_registered_twice_then_there_once_whatever_its_case),
        T(given_addresses_when_published_then_read_in_their_order),
        T(given_known_addresses_when_a_lookup_fails_then_they_stay),
        T(given_no_addresses_when_a_lookup_fails_then_known_as_failed),
        T(given_full_table_when_one_more_is_registered_then_no_space),
        T(given_index_past_the_last_when_published_then_ignored),
        T(given_helper_killed_at_random_when_looked_up_then_whole_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
