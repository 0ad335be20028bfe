#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/resolver.h"

#define WAIT_MS 20000

struct fixture {
    struct loop *loop;
    struct addresses_region *addresses;
    struct counters *counters;
    struct resolver *resolver;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    log_to(-1, -1); /* failures are meant here */
    f->loop = loop_new();
    f->addresses = calloc(1, addresses_region_spec().bytes);
    addresses_region_init(f->addresses);
    f->counters = aligned_alloc(64, sizeof(*f->counters));
    memset(f->counters, 0, sizeof(*f->counters));
    f->resolver = resolver_new(f->loop, f->addresses, f->counters);
    assert_non_null(f->resolver);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    resolver_free(f->resolver);
    loop_free(f->loop);
    free(f->addresses);
    free(f->counters);
    free(f);
    return 0;
}

static void await(struct fixture *f, const char *host, struct address_list *list)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;

    /* The first turn with events is the one that has heard of the result. */
    while (addresses_lookup(f->addresses, host, list) != 0 && clock_monotonic_ms() < until_ms)
        assert_true(loop_turn(f->loop, 10) >= 0);
    assert_int_equal(addresses_lookup(f->addresses, host, list), 0);
    while (loop_turn(f->loop, 20) > 0)
        ;
}

static void given_known_name_when_looked_up_then_addresses_are_published(void **state)
{
    struct fixture *f = *state;
    struct address_list list;

    assert_int_equal(addresses_register(f->addresses, "localhost"), 0);
    resolver_look(f->resolver, true);
    await(f, "localhost", &list);
    assert_int_equal(list.error, 0);
    assert_true(list.count >= 1);
    assert_true(strcmp(list.text[0], "127.0.0.1") == 0 || strcmp(list.text[0], "::1") == 0);
    assert_int_equal(f->counters->resolves_total, 1);
    assert_int_equal(f->counters->resolve_failures_total, 0);
}

static void given_impossible_name_when_looked_up_then_failure_is_published_and_counted(void **state)
{
    struct fixture *f = *state;
    struct address_list list;

    assert_int_equal(addresses_register(f->addresses, "no such name.invalid"), 0);
    resolver_look(f->resolver, true);
    await(f, "no such name.invalid", &list);
    assert_int_not_equal(list.error, 0);
    assert_int_equal(list.count, 0);
    assert_int_equal(f->counters->resolve_failures_total, 1);
}

static void given_new_name_when_asked_for_new_ones_then_only_it_is_looked_up(void **state)
{
    struct fixture *f = *state;
    struct address_list list;

    assert_int_equal(addresses_register(f->addresses, "localhost"), 0);
    resolver_look(f->resolver, true);
    await(f, "localhost", &list);
    assert_int_equal(addresses_register(f->addresses, "ip6-localhost"), 0);
    resolver_look(f->resolver, false);
    await(f, "ip6-localhost", &list);
    assert_int_equal(f->counters->resolves_total, 2);
}

int main(void)
{
#define RESOLVER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        RESOLVER_TEST(given_known_name_when_looked_up_then_addresses_are_published),
        RESOLVER_TEST(given_impossible_name_when_looked_up_then_failure_is_published_and_counted),
        RESOLVER_TEST(given_new_name_when_asked_for_new_ones_then_only_it_is_looked_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
