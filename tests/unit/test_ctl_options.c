/* xrouterctl is no library: its options are compiled into this test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "gateway/ctl/options.c"

static char complaint[512];

void ctl_complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(complaint, sizeof(complaint), format, args);
    va_end(args);
}

#define TAKES (CTL_TAKES(json) | CTL_TAKES(name) | CTL_TAKES(rpm) | CTL_TAKES(watch))

/* Reads the words as options only; returns how many were read, or -1. */
static int read_all(struct ctl_options *o, int argc, const char *const words[])
{
    char *argv[8];
    int at = 0;

    ctl_options_init(o);
    complaint[0] = '\0';
    for (int i = 0; i < argc; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    while (at < argc)
        if (ctl_option_read(o, TAKES, argc, argv, &at) < 0)
            return -1;
    return at;
}

#define READ(o, ...)                                                             \
    read_all((o), (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), \
             (const char *[]){__VA_ARGS__})

static void given_no_options_when_initialised_then_nothing_is_set(void **state)
{
    struct ctl_options o;

    ctl_options_init(&o);
    assert_false(o.json);
    assert_null(o.name);
    assert_int_equal(o.rpm, -1);
    assert_int_equal(o.timeout_ms, -1);
}

static void given_every_form_when_read_then_values(void **state)
{
    struct ctl_options o;

    assert_int_equal(READ(&o, "--json", "--name", "a b", "--rpm=7", "-c", "x.json"), 6);
    assert_true(o.json);
    assert_string_equal(o.name, "a b");
    assert_int_equal(o.rpm, 7);
    assert_string_equal(o.config_file, "x.json");
    assert_int_equal(READ(&o, "-cy.json", "-w", "--name="), 3);
    assert_string_equal(o.config_file, "y.json");
    assert_true(o.watch);
    assert_string_equal(o.name, "");
    assert_int_equal(READ(&o, "--rpm", "4294967295"), 2);
    assert_true(o.rpm == UINT32_MAX);
}

static void given_bad_options_when_read_then_refused_with_the_reason(void **state)
{
    struct ctl_options o;

    assert_int_equal(READ(&o, "--nam", "x"), -1);
    assert_non_null(strstr(complaint, "did you mean --name?"));
    assert_int_equal(READ(&o, "--tpm", "1"), -1); /* exists, but not for this verb */
    assert_int_equal(READ(&o, "--name"), -1);
    assert_non_null(strstr(complaint, "needs a value"));
    assert_int_equal(READ(&o, "--json=1"), -1);
    assert_non_null(strstr(complaint, "takes no value"));
    assert_int_equal(READ(&o, "--c", "x"), -1);
    assert_int_equal(READ(&o, "-x"), -1);
    assert_int_equal(READ(&o, "-wc"), -1);
}

static void given_bad_counts_when_read_then_refused(void **state)
{
    static const char *const bad[] = {"", "-1", "1.5", "4294967296", "99999999999999999999", "1k"};
    struct ctl_options o;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(READ(&o, "--rpm", bad[i]), -1);
        assert_non_null(strstr(complaint, "--rpm"));
    }
}

static void given_moments_and_spans_when_parsed_then_unix_time(void **state)
{
    const int64_t now = INT64_C(1795461183007);
    int64_t at;

    assert_int_equal(ctl_when_parse("2026-02-01", 1, now, &at), 0);
    assert_true(at == INT64_C(1769904000000));
    assert_int_equal(ctl_when_parse("90s", 1, now, &at), 0);
    assert_true(at == now + 90000);
    assert_int_equal(ctl_when_parse("12h", -1, now, &at), 0);
    assert_true(at == now - 12 * INT64_C(3600000));
    assert_int_equal(ctl_when_parse("2w", -1, now, &at), 0);
    assert_true(at == now - 14 * INT64_C(86400000));
    assert_int_not_equal(ctl_when_parse("d", 1, now, &at), 0);
    assert_int_not_equal(ctl_when_parse("12", 1, now, &at), 0);
    assert_int_not_equal(ctl_when_parse("12y", 1, now, &at), 0);
    assert_int_not_equal(ctl_when_parse("-5d", 1, now, &at), 0);
    assert_int_not_equal(ctl_when_parse("", 1, now, &at), 0);
}

static void given_verb_when_help_asked_then_its_options_only(void **state)
{
    struct buf out;

    buf_init(&out, 10000);
    ctl_options_help(TAKES, &out);
    assert_non_null(strstr(buf_text(&out), "--rpm N"));
    assert_non_null(strstr(buf_text(&out), "-c, --config FILE"));
    assert_null(strstr(buf_text(&out), "--tpm"));
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_no_options_when_initialised_then_nothing_is_set),
        cmocka_unit_test(given_every_form_when_read_then_values),
        cmocka_unit_test(given_bad_options_when_read_then_refused_with_the_reason),
        cmocka_unit_test(given_bad_counts_when_read_then_refused),
        cmocka_unit_test(given_moments_and_spans_when_parsed_then_unix_time),
        cmocka_unit_test(given_verb_when_help_asked_then_its_options_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
