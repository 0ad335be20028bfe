/* Where connections come from: how many, and with how many wrong keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "gateway/visitors.h"

static struct sockaddr_storage at(const char *text)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)&address;
    struct sockaddr_in *four = (struct sockaddr_in *)(void *)&address;

    if (strchr(text, ':') != NULL) {
        address.ss_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &six->sin6_addr), 1);
    } else {
        address.ss_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &four->sin_addr), 1);
    }
    return address;
}

static int setup(void **state)
{
    *state = visitors_new();
    return *state == NULL;
}

static int teardown(void **state)
{
    visitors_free(*state);
    return 0;
}

static struct visitor *enter(void **state, const char *text, uint32_t most)
{
    const struct sockaddr_storage address = at(text);

    return visitor_enter(*state, &address, most, 1000);
}

static void given_a_limit_when_an_address_has_so_many_then_refused_until_one_leaves(void **state)
{
    struct visitor *first = enter(state, "10.0.0.1", 2), *second = enter(state, "10.0.0.1", 2);

    assert_non_null(first);
    assert_ptr_equal(first, second);
    assert_null(enter(state, "10.0.0.1", 2));
    assert_null(enter(state, "::ffff:10.0.0.1", 2)); /* the same, by the other listener */
    assert_non_null(enter(state, "10.0.0.2", 2));
    assert_non_null(enter(state, "10.0.0.1", 0)); /* a reload has taken the limit away */
    visitor_leave(first);
    visitor_leave(first);
    assert_non_null(enter(state, "10.0.0.1", 2));
    assert_null(enter(state, "10.0.0.1", 2));
}

static void given_addresses_of_one_network_when_entered_then_they_are_one(void **state)
{
    assert_non_null(enter(state, "2001:db8:1:2::1", 1));
    assert_null(enter(state, "2001:db8:1:2:ffff::9", 1));
    assert_non_null(enter(state, "2001:db8:1:3::1", 1));
    assert_non_null(enter(state, "::1", 1));
}

static void given_wrong_keys_when_too_many_in_a_minute_then_told_how_long(void **state)
{
    struct visitor *p = enter(state, "10.0.0.1", 0);

    for (int i = 0; i < 3; i++)
        assert_int_equal(visitor_note_wrong_key(p, 3, 5000 + i), 0);
    assert_int_equal(visitor_note_wrong_key(p, 3, 6000), 59000);
    assert_int_equal(visitor_note_wrong_key(p, 0, 6000), 0);
    /* Its connections come and go; its minute stays. */
    visitor_leave(p);
    p = enter(state, "10.0.0.1", 0);
    assert_int_equal(visitor_note_wrong_key(p, 3, 64999), 1);
    assert_int_equal(visitor_note_wrong_key(p, 3, 65000), 0);
    assert_int_equal(visitor_note_wrong_key(NULL, 3, 65000), 0);
}

static void given_more_addresses_than_places_when_entered_then_some_share_one(void **state)
{
    enum { MANY = 20000 };
    static struct visitor *all[MANY];
    size_t refused = 0;

    for (uint32_t i = 0; i < MANY; i++) {
        struct sockaddr_storage address = at("0.0.0.0");

        ((struct sockaddr_in *)(void *)&address)->sin_addr.s_addr = htonl(0x0a000000 + i);
        all[i] = visitor_enter(*state, &address, 1, 1000);
        refused += all[i] == NULL;
    }
    assert_int_equal(refused, 0); /* those for whom there is no place are not limited by others */
    for (uint32_t i = 0; i < MANY; i++)
        visitor_leave(all[i]);
    assert_non_null(enter(state, "192.168.0.1", 1)); /* places of idle ones are taken again */
    assert_null(enter(state, "192.168.0.1", 1));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(given_a_limit_when_an_address_has_so_many_then_refused_until_one_leaves),
        TEST(given_addresses_of_one_network_when_entered_then_they_are_one),
        TEST(given_wrong_keys_when_too_many_in_a_minute_then_told_how_long),
        TEST(given_more_addresses_than_places_when_entered_then_some_share_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
