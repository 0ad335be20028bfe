#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/gigachat_kit.h"

#define NOW_MS INT64_C(1789999000000)

/* The value of a header, cut to fit; false if it is absent. */
static bool header(const struct buf *head, const char *name, char *out, size_t size)
{
    char line[80];
    const char *text = buf_text((struct buf *)head);
    const char *found;
    size_t len;

    snprintf(line, sizeof(line), "\r\n%s: ", name);
    found = strstr(text, line);
    if (found == NULL)
        return false;
    found += strlen(line);
    len = strcspn(found, "\r");
    snprintf(out, size, "%.*s", (int)len, found);
    return true;
}

static void assert_header(const struct buf *head, const char *name, const char *expected)
{
    char value[256];

    assert_true(header(head, name, value, sizeof(value)));
    assert_string_equal(value, expected);
}

static void given_credentials_when_token_encoded_then_as_documented(void **state)
{
    struct provider_config p = kit_provider();
    struct upstream_request r;
    struct error e = {0};
    struct buf fixture;
    const char *body;

    upstream_request_init(&r);
    assert_int_equal(kit_ops()->encode_token(&p, &r, &e), 0);
    assert_memory_equal(r.head.data, "POST /api/v2/oauth HTTP/1.1\r\n", 29);
    assert_header(&r.head, "Host", "ngw.devices.sberbank.ru:9443");
    assert_header(&r.head, "Authorization", "Basic aWQ6c2VjcmV0");
    assert_header(&r.head, "Content-Type", "application/x-www-form-urlencoded");
    assert_header(&r.head, "Accept", "application/json");
    assert_header(&r.head, "User-Agent", "xrouter/" XROUTER_VERSION);
    assert_header(&r.head, "Content-Length", "23");
    assert_memory_equal(r.head.data + r.head.len - 4, "\r\n\r\n", 4);
    assert_false(r.wants_stream);
    kit_read("token_request.http", &fixture);
    body = strstr(buf_text(&fixture), "\n\n") + 2;
    assert_memory_equal(r.body.data, body, r.body.len);
    assert_string_equal(body + r.body.len, "\n");
    buf_clear(&fixture);
    upstream_request_clear(&r);
}

static void given_two_requests_when_encoded_then_each_has_its_own_uuid4(void **state)
{
    struct provider_config p = kit_provider();
    char uuids[2][64] = {{0}};

    for (size_t i = 0; i < 2; i++) {
        struct upstream_request r;
        struct error e = {0};

        upstream_request_init(&r);
        assert_int_equal(kit_ops()->encode_token(&p, &r, &e), 0);
        assert_true(header(&r.head, "RqUID", uuids[i], sizeof(uuids[i])));
        assert_int_equal(strlen(uuids[i]), 36);
        for (size_t c = 0; c < 36; c++) {
            if (c == 8 || c == 13 || c == 18 || c == 23)
                assert_int_equal(uuids[i][c], '-');
            else
                assert_true(isxdigit((unsigned char)uuids[i][c]));
        }
        assert_int_equal(uuids[i][14], '4');
        assert_non_null(strchr("89ab", uuids[i][19]));
        upstream_request_clear(&r);
    }
    assert_string_not_equal(uuids[0], uuids[1]);
}

static void given_user_and_password_when_token_encoded_then_asks_the_api(void **state)
{
    static const char *const cases[][2] = {
        {"https://api.giga.chat", "POST /v1/token HTTP/1.1\r\n"},
        {"https://h:8443/api/v1/", "POST /api/v1/token HTTP/1.1\r\n"},
    };
    char kind[] = "password", user[] = "u", password[] = "p:\xD0\xBF", empty[] = "";

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct provider_config p = kit_provider();
        struct upstream_request r;
        struct error e = {0};
        char url[64];
        char value[64];

        snprintf(url, sizeof(url), "%s", cases[i][0]);
        p.auth = kind;
        p.auth_url = url;
        p.credentials = empty;
        p.user = user;
        p.password = password;
        assert_true(kit_ops()->needs_token(&p));
        upstream_request_init(&r);
        assert_int_equal(kit_ops()->encode_token(&p, &r, &e), 0);
        assert_memory_equal(r.head.data, cases[i][1], strlen(cases[i][1]));
        assert_header(&r.head, "Authorization", "Basic dTpwOtC/"); /* u:p:п */
        assert_header(&r.head, "Content-Length", "0");
        assert_header(&r.head, "User-Agent", "xrouter/" XROUTER_VERSION);
        assert_false(header(&r.head, "RqUID", value, sizeof(value)));
        assert_int_equal(r.body.len, 0);
        upstream_request_clear(&r);
    }
}

static void given_bad_configuration_when_token_encoded_then_final_error(void **state)
{
    struct provider_config p = kit_provider();
    struct upstream_request r;
    struct error e = {0};
    char empty[] = "", broken[] = "a\r\nX-Evil: 1", url[] = "ftp://x";

    upstream_request_init(&r);
    p.credentials = empty;
    assert_int_equal(kit_ops()->encode_token(&p, &r, &e), XR_EUPSTREAMAUTH);
    upstream_request_clear(&r);
    p.credentials = broken;
    assert_int_equal(kit_ops()->encode_token(&p, &r, &e), XR_EUPSTREAMAUTH);
    assert_null(strstr(e.message, "X-Evil"));
    upstream_request_clear(&r);
    p = kit_provider();
    p.auth_url = url;
    assert_int_equal(kit_ops()->encode_token(&p, &r, &e), XR_EUPSTREAMAUTH);
    upstream_request_clear(&r);
}

static int decode(unsigned status, const char *body, char **token, int64_t *expires_at_ms,
                  struct error *e)
{
    memset(e, 0, sizeof(*e));
    return kit_ops()->decode_token(status, body, strlen(body), NOW_MS, token, expires_at_ms, e);
}

static void assert_token_file(const char *name, int64_t expected)
{
    struct buf body;
    struct error e;
    char *token;
    int64_t at;

    kit_read(name, &body);
    assert_int_equal(decode(200, buf_text(&body), &token, &at, &e), 0);
    assert_int_equal(strlen(token), 1200);
    assert_int_equal(at, expected);
    free(token);
    buf_clear(&body);
}

static void given_either_shape_and_unit_when_token_decoded_then_same_expiry(void **state)
{
    assert_token_file("token.json", INT64_C(1790000000000));
    assert_token_file("token_seconds.json", INT64_C(1790000000000));
    assert_token_file("token_short.json", INT64_C(1790000000000));
}

static void given_useless_expiry_when_token_decoded_then_usual_life(void **state)
{
    static const char *const bodies[] = {
        "{\"access_token\":\"abc\"}",
        "{\"access_token\":\"abc\",\"expires_at\":0}",
        "{\"access_token\":\"abc\",\"expires_at\":1500000000000}",
        "{\"access_token\":\"abc\",\"expires_at\":-5}",
        "{\"access_token\":\"abc\",\"expires_at\":\"soon\"}",
        "{\"tok\":\"abc\",\"exp\":1500000000}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct error e;
        char *token;
        int64_t at;

        assert_int_equal(decode(200, bodies[i], &token, &at, &e), 0);
        assert_string_equal(token, "abc");
        assert_int_equal(at, NOW_MS + 1800000);
        free(token);
    }
}

static void given_answer_without_token_when_decoded_then_passing_error(void **state)
{
    static const char *const bodies[] = {
        "",
        "<html>filter</html>",
        "[]",
        "{}",
        "{\"access_token\":5}",
        "{\"access_token\":\"\"}",
        "{\"access_token\":\"a\\r\\nb\"}",
        "{\"access_token\":\"a b\"}",
        "{\"access_token\":null,\"tok\":\"x\"}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct error e;
        char *token;
        int64_t at;

        assert_int_equal(decode(200, bodies[i], &token, &at, &e), XR_EUPSTREAM);
        assert_null(token);
    }
}

static void given_oauth_error_when_decoded_then_final_with_its_meaning(void **state)
{
    static const struct {
        unsigned status;
        const char *file;
        const char *text;
    } cases[] = {
        {400, "token_error_1.json", "scope is malformed"},
        {400, "token_error_4.json", "not base64"},
        {400, "token_error_5.json", "scope is missing"},
        {401, "token_error_6.json", "key is unknown"},
        {400, "token_error_7.json", "does not belong"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf body;
        struct error e;
        char *token;
        int64_t at;

        kit_read(cases[i].file, &body);
        assert_int_equal(decode(cases[i].status, buf_text(&body), &token, &at, &e),
                         XR_EUPSTREAMAUTH);
        assert_non_null(strstr(e.message, cases[i].text));
        assert_null(token);
        buf_clear(&body);
    }
}

static void given_statuses_when_decoded_then_only_the_clients_faults_are_final(void **state)
{
    static const unsigned final[] = {400, 401, 403, 404, 405};
    static const unsigned passing[] = {302, 408, 429, 500, 502, 503};
    struct error e;
    char *token;
    int64_t at;

    for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++)
        assert_int_equal(decode(final[i], "<html>", &token, &at, &e), XR_EUPSTREAMAUTH);
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        assert_int_equal(decode(passing[i], "", &token, &at, &e), XR_EUPSTREAM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_credentials_when_token_encoded_then_as_documented),
        cmocka_unit_test(given_two_requests_when_encoded_then_each_has_its_own_uuid4),
        cmocka_unit_test(given_user_and_password_when_token_encoded_then_asks_the_api),
        cmocka_unit_test(given_bad_configuration_when_token_encoded_then_final_error),
        cmocka_unit_test(given_either_shape_and_unit_when_token_decoded_then_same_expiry),
        cmocka_unit_test(given_useless_expiry_when_token_decoded_then_usual_life),
        cmocka_unit_test(given_answer_without_token_when_decoded_then_passing_error),
        cmocka_unit_test(given_oauth_error_when_decoded_then_final_with_its_meaning),
        cmocka_unit_test(given_statuses_when_decoded_then_only_the_clients_faults_are_final),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
