#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/auth.h"
#include "tests/unit/forked.h"

#define CAPACITY 64
#define NOW_AT_MS INT64_C(1795460000000)

static const uint8_t pepper[KEY_PEPPER_BYTES] = "a pepper of thirty-two bytes ...";

static void text_of(unsigned number, char text[KEY_TEXT_BYTES])
{
    snprintf(text, KEY_TEXT_BYTES, KEY_PREFIX "%043u", number);
}

static void put(struct keytable_region *r, unsigned number, int64_t expires_at_ms, bool revoked)
{
    struct key key = {.id = number, .expires_at_ms = expires_at_ms};
    char text[KEY_TEXT_BYTES];
    uint8_t digest[DIGEST_BYTES];

    text_of(number, text);
    assert_int_equal(keytable_digest(r, text, KEY_TEXT_LEN, digest), 0);
    assert_int_equal(keytable_put(r, digest, &key), 0);
    key.revoked = revoked;
    assert_int_equal(keytable_put(r, digest, &key), 0);
}

static int setup(void **state)
{
    struct keytable_region *r = forked_memory(keytable_region_spec(CAPACITY).bytes);

    keytable_region_init(r, CAPACITY, pepper);
    put(r, 1, 0, false);
    put(r, 2, 0, true);
    put(r, 3, NOW_AT_MS - 1, false);
    put(r, 4, NOW_AT_MS + 1, false);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    munmap(*state, keytable_region_spec(CAPACITY).bytes);
    return 0;
}

static int check(const struct keytable_region *r, const char *header, struct key *out,
                 struct error *e)
{
    memset(e, 0, sizeof(*e));
    return auth_check(r, header, header == NULL ? 0 : strlen(header), NOW_AT_MS, out, e);
}

static int check_key(const struct keytable_region *r, const char *scheme, unsigned number,
                     struct key *out, struct error *e)
{
    char text[KEY_TEXT_BYTES], header[100];
    int rc;

    text_of(number, text);
    snprintf(header, sizeof(header), "%s%s", scheme, text);
    rc = check(r, header, out, e);
    assert_null(strstr(e->message, text)); /* a key is never repeated */
    return rc;
}

static void given_a_known_key_when_checked_then_found(void **state)
{
    static const char *const schemes[] = {"Bearer ", "bearer ", "BEARER "};
    struct error e;
    struct key key;

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(check_key(*state, schemes[i], 1, &key, &e), 0);
        assert_int_equal(key.id, 1);
    }
    assert_int_equal(check_key(*state, "Bearer ", 4, &key, &e), 0);
}

static void given_a_key_that_does_not_count_when_checked_then_refused(void **state)
{
    struct error e;
    struct key key;

    assert_int_equal(check_key(*state, "Bearer ", 2, &key, &e), XR_EAUTH);
    assert_int_equal(e.number, XR_EAUTH);
    assert_int_equal(check_key(*state, "Bearer ", 9, &key, &e), XR_EAUTH);
    assert_int_equal(check_key(*state, "Bearer ", 3, &key, &e), XR_EEXPIRED);
    assert_int_equal(e.number, XR_EEXPIRED);
}

static void given_a_header_of_another_shape_when_checked_then_refused(void **state)
{
    static const char *const headers[] = {
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "sk-xr-abc",
        "Bearer nonsense",
        "Bearersk-xr-",
        "Bearer sk-xr-",
        "Bearer  sk-xr-0000000000000000000000000000000000000000001",
        "Bearer sk-xr-0000000000000000000000000000000000000000001 ",
        "Bearer sk-xr-000000000000000000000000000000000000000000\xff",
    };
    struct error e;
    struct key key;

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        assert_int_equal(check(*state, headers[i], &key, &e), XR_EAUTH);
        assert_int_equal(e.number, XR_EAUTH);
        assert_true(e.message[0] != '\0');
    }
}

static void given_no_header_when_checked_then_told_how_to_send_one(void **state)
{
    struct error e;
    struct key key;

    assert_int_equal(check(*state, NULL, &key, &e), XR_EAUTH);
    assert_non_null(strstr(e.message, "Authorization: Bearer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_known_key_when_checked_then_found),
        cmocka_unit_test(given_a_key_that_does_not_count_when_checked_then_refused),
        cmocka_unit_test(given_a_header_of_another_shape_when_checked_then_refused),
        cmocka_unit_test(given_no_header_when_checked_then_told_how_to_send_one),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
