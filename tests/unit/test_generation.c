#include "tests/unit/ledger_fixture.h"

#include <errno.h>

#include "common/buf.h"
#include "common/error.h"
#include "usage/generation.h"

#define OTHER_KEY UINT64_C(0xb2)

struct fixture {
    char dir[64];
    struct ledger *ledger;
};

static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];

    fixture_make_dir(f.dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.dir);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ledger);
    fixture_remove_dir(f->dir);
    return 0;
}

static void insert(struct fixture *f, const struct usage_event *e)
{
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(f->ledger), 0);
}

static int look_up(struct fixture *f, const struct usage_event *e, uint64_t key_id, char *text,
                   size_t size)
{
    struct buf out;
    int rc;

    buf_init(&out, 1 << 20);
    rc = generation_encode(f->ledger, &e->id, key_id, "req_x", &out);
    snprintf(text, size, "%s", rc == 0 ? buf_text(&out) : "");
    buf_clear(&out);
    return rc;
}

static void given_a_request_when_its_key_asks_then_its_numbers(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(7);
    char text[2048];

    insert(f, &e);
    assert_int_equal(look_up(f, &e, FIXTURE_KEY, text, sizeof(text)), 0);
    assert_string_equal(
        text,
        "{\"id\":\"req_x\",\"model\":\"gigachat/GigaChat-2\",\"provider_name\":\"gigachat\","
        "\"upstream_id\":null,\"created_at\":\"2026-03-01T12:00:00.007Z\",\"streamed\":false,"
        "\"cancelled\":false,\"finish_reason\":null,\"native_finish_reason\":null,"
        "\"latency\":350,\"first_byte_latency\":120,\"generation_time\":230,"
        "\"tokens_prompt\":107,\"tokens_completion\":20,\"native_tokens_prompt\":107,"
        "\"native_tokens_completion\":20,\"native_tokens_reasoning\":null,"
        "\"native_tokens_cached\":10,\"tokens_source\":\"provider\",\"total_cost\":\"0.000001007\","
        "\"cache_discount\":null,\"http_status\":200,\"error_code\":null,"
        "\"provider_responses\":[{\"provider_name\":\"gigachat\",\"model\":\"GigaChat-2\","
        "\"status\":200,\"error_code\":null,\"latency\":340}]}");
}

static void given_two_attempts_when_asked_then_both_in_order(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);
    char text[2048];

    e.attempt_count = 2;
    e.attempts[1] = e.attempts[0];
    e.attempts[0].http_status = 0;
    e.attempts[0].error = XR_ETIMEOUT;
    insert(f, &e);
    assert_int_equal(look_up(f, &e, FIXTURE_KEY, text, sizeof(text)), 0);
    assert_non_null(strstr(text, "\"status\":null,\"error_code\":\"upstream_timeout\""));
    assert_non_null(strstr(text, "},{\"provider_name\""));
}

static void given_no_attempt_and_no_byte_when_asked_then_nulls(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);
    char text[2048];

    e.attempt_count = 0;
    e.provider[0] = '\0';
    e.first_byte_ms = 0;
    e.outcome = USAGE_ERROR;
    e.error = XR_ENOPROVIDER;
    insert(f, &e);
    assert_int_equal(look_up(f, &e, FIXTURE_KEY, text, sizeof(text)), 0);
    assert_non_null(strstr(text, "\"provider_name\":null"));
    assert_non_null(strstr(text, "\"first_byte_latency\":null,\"generation_time\":null"));
    assert_non_null(strstr(text, "\"finish_reason\":\"error\""));
    assert_non_null(strstr(text, "\"error_code\":\"no_provider\",\"provider_responses\":[]}"));
}

static void given_another_key_or_no_row_when_asked_then_not_found(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1), never = fixture_event(2);
    char text[64];

    insert(f, &e);
    assert_int_equal(look_up(f, &e, OTHER_KEY, text, sizeof(text)), -ENOENT);
    assert_int_equal(look_up(f, &never, FIXTURE_KEY, text, sizeof(text)), -ENOENT);
}

static void given_names_when_parsed_then_the_same_id(void **state)
{
    static const char hex[] = "0123456789abcdef0123456789abcdef";
    static const char *const prefixes[] = {"", "req_", "chatcmpl-", "cmpl-"};
    static const char *const bad[] = {"",
                                      "req_",
                                      "chatcmpl-0123",
                                      "gen-0123456789abcdef",
                                      "req_chatcmpl-0123456789abcdef0123456789abcdef",
                                      "0123456789abcdef0123456789abcdef0"};
    struct usage_id id;
    char text[64], back[USAGE_ID_TEXT_BYTES];

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        snprintf(text, sizeof(text), "%s%s", prefixes[i], hex);
        assert_int_equal(generation_name_parse(text, &id), 0);
        usage_id_format(&id, back);
        assert_string_equal(back, hex);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(generation_name_parse(bad[i], &id), -EINVAL);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_a_request_when_its_key_asks_then_its_numbers),
        T(given_two_attempts_when_asked_then_both_in_order),
        T(given_no_attempt_and_no_byte_when_asked_then_nulls),
        T(given_another_key_or_no_row_when_asked_then_not_found),
        cmocka_unit_test(given_names_when_parsed_then_the_same_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
