/* URLs of the config: what they are made of, and what is refused. */
#include "providers/url.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void given_good_urls_when_split_then_their_parts(void **state)
{
    static const struct {
        const char *url;
        bool tls;
        const char *host;
        uint16_t port;
        const char *path;
        const char *authority;
    } rows[] = {
        {"http://a", false, "a", 80, "", "a"},
        {"https://Api.Giga.Chat/v1", true, "api.giga.chat", 443, "/v1", "api.giga.chat"},
        {"HTTPS://a.b:9443/api/v2/oauth", true, "a.b", 9443, "/api/v2/oauth", "a.b:9443"},
        {"http://127.0.0.1:8080/", false, "127.0.0.1", 8080, "/", "127.0.0.1:8080"},
        {"https://[::1]:8443/x?y=z", true, "::1", 8443, "/x?y=z", "[::1]:8443"},
        {"http://[2001:DB8::1]", false, "2001:db8::1", 80, "", "[2001:db8::1]"},
        {"https://a:443", true, "a", 443, "", "a"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct url_parts parts;

        assert_int_equal(url_split(rows[i].url, &parts), 0);
        assert_int_equal(parts.tls, rows[i].tls);
        assert_string_equal(parts.host, rows[i].host);
        assert_int_equal(parts.port, rows[i].port);
        assert_string_equal(parts.path, rows[i].path);
        assert_string_equal(parts.authority, rows[i].authority);
    }
}

static void given_bad_urls_when_split_then_refused(void **state)
{
    static const char *const urls[] = {
        "",
        "a",
        "ftp://a",
        "http:/a",
        "http://",
        "http:///x",
        "http://u@a",
        "http://u:p@a",
        "http://a:",
        "http://a:0",
        "http://a:x",
        "http://a:1x",
        "http://a?x",
        "http://a#x",
        "http://a:65536",
        "http://a/#",
        "http://a b",
        "http://a/ b",
        "http://a/\r\nb",
        "http://a/\x80",
        "http://a..",
        "http://a.",
        "http://.a",
        "http://a..b",
        "http://\xd0\xb0",
        "http://[::",
        "http://[::x]",
        "http://[]",
        "http://::1",
        "http://[::1]x",
    };
    struct url_parts parts;

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
        if (url_split(urls[i], &parts) != -EINVAL)
            fail_msg("accepted: %s", urls[i]);
}

static void given_a_host_as_long_as_can_be_when_split_then_it_fits_or_is_refused(void **state)
{
    char url[600] = "http://";
    struct url_parts parts;

    memset(url + 7, 'a', 255);
    strcpy(url + 7 + 255, ":65535/");
    assert_int_equal(url_split(url, &parts), 0);
    assert_int_equal(strlen(parts.host), 255);
    assert_int_equal(strlen(parts.authority), 261);
    memset(url + 7, 'a', 256);
    strcpy(url + 7 + 256, "/");
    assert_int_equal(url_split(url, &parts), -EINVAL);
}

static void given_hosts_when_asked_then_addresses_are_told_from_names(void **state)
{
    assert_true(url_host_is_numeric("127.0.0.1"));
    assert_true(url_host_is_numeric("::1"));
    assert_false(url_host_is_numeric("localhost"));
    assert_false(url_host_is_numeric("127.0.0.1.example"));
    assert_false(url_host_is_numeric("127.1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_good_urls_when_split_then_their_parts),
        cmocka_unit_test(given_bad_urls_when_split_then_refused),
        cmocka_unit_test(given_a_host_as_long_as_can_be_when_split_then_it_fits_or_is_refused),
        cmocka_unit_test(given_hosts_when_asked_then_addresses_are_told_from_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
