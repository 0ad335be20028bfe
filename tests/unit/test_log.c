#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/log.h"

struct fixture {
    int error[2];
    int access[2];
    char text[8192];
};

static void open_pipe(int fds[2])
{
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    open_pipe(f->error);
    open_pipe(f->access);
    log_init("worker", 3, LOG_INFO);
    log_to(f->error[1], f->access[1]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    log_to(STDERR_FILENO, STDERR_FILENO);
    for (int i = 0; i < 2; i++) {
        close(f->error[i]);
        close(f->access[i]);
    }
    free(f);
    return 0;
}

static const char *read_text(struct fixture *f, int fd)
{
    ssize_t n = read(fd, f->text, sizeof(f->text) - 1);

    f->text[n > 0 ? n : 0] = '\0';
    return f->text;
}

/* The one line that is in the pipe, as a tree. */
static cJSON *read_line(struct fixture *f)
{
    const char *text = read_text(f, f->error[0]);
    size_t len = strlen(text);
    cJSON *tree;

    assert_true(len > 0 && len <= LOG_LINE_MAX && text[len - 1] == '\n');
    tree = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(tree);
    return tree;
}

static void given_event_when_logged_then_one_json_line(void **state)
{
    struct fixture *f = *state;
    int64_t number;
    cJSON *tree;

    log_event(LOG_WARN, "worker_died", "\"signal\":9", "worker %d died\n", 7);
    tree = read_line(f);
    assert_string_equal(json_string(tree, "level"), "warn");
    assert_string_equal(json_string(tree, "role"), "worker");
    assert_string_equal(json_string(tree, "event"), "worker_died");
    assert_string_equal(json_string(tree, "message"), "worker 7 died\n");
    assert_int_equal(strlen(json_string(tree, "ts")), 24);
    assert_int_equal(json_get_i64(tree, "slot", &number), 0);
    assert_int_equal(number, 3);
    assert_int_equal(json_get_i64(tree, "signal", &number), 0);
    assert_int_equal(number, 9);
    assert_int_equal(json_get_i64(tree, "pid", &number), 0);
    assert_int_equal(number, getpid());
    cJSON_Delete(tree);
}

static void given_requests_event_when_logged_then_its_id_is_a_field(void **state)
{
    struct fixture *f = *state;
    cJSON *tree;

    log_request_event(LOG_WARN, "breaker_changed", "req_\"1\"", "the breaker of %s", "x");
    tree = read_line(f);
    assert_string_equal(json_string(tree, "request_id"), "req_\"1\"");
    assert_string_equal(json_string(tree, "event"), "breaker_changed");
    assert_string_equal(json_string(tree, "message"), "the breaker of x");
    cJSON_Delete(tree);
    log_set_level(LOG_ERROR);
    log_request_event(LOG_WARN, "breaker_changed", "req_1", "x");
    assert_string_equal(read_text(f, f->error[0]), "");
}

static void given_level_when_below_then_silent(void **state)
{
    struct fixture *f = *state;

    log_event(LOG_DEBUG, "detail", "", "x");
    assert_string_equal(read_text(f, f->error[0]), "");
    log_set_level(LOG_ERROR);
    assert_false(log_is_on(LOG_WARN));
    log_event(LOG_WARN, "warning", "", "x");
    assert_string_equal(read_text(f, f->error[0]), "");
    log_event(LOG_ERROR, "failure", "", "x");
    cJSON_Delete(read_line(f));
}

static void given_very_long_parts_when_logged_then_still_one_valid_line(void **state)
{
    struct fixture *f = *state;
    char fields[5000], message[3000];
    cJSON *tree;

    memset(message, 1, sizeof(message)); /* six bytes each once escaped */
    message[sizeof(message) - 1] = '\0';
    strcpy(fields, "\"x\":\"");
    memset(fields + 5, 'f', 2000);
    strcpy(fields + 2005, "\"");
    log_event(LOG_INFO, "long", fields, "%s", message);
    tree = read_line(f);
    assert_int_equal(strlen(json_string(tree, "x")), 2000);
    assert_true(strlen(json_string(tree, "message")) >= 64);
    cJSON_Delete(tree);

    memset(fields + 5, 'f', 4000);
    strcpy(fields + 4005, "\"");
    log_event(LOG_INFO, "long", fields, "short");
    tree = read_line(f);
    assert_true(cJSON_IsTrue(json_get(tree, "fields_dropped")));
    assert_string_equal(json_string(tree, "message"), "short");
    cJSON_Delete(tree);
}

static void given_full_pipe_when_logged_then_dropped_and_counted_at_once(void **state)
{
    struct fixture *f = *state;
    uint64_t before = log_dropped();
    int saved;

    for (int i = 0; i < 5000; i++)
        log_event(LOG_INFO, "flood", "", "%0500d", i);
    assert_true(log_dropped() > before);
    errno = 77;
    log_event(LOG_INFO, "flood", "", "x");
    saved = errno;
    assert_int_equal(saved, 77);
    assert_true(f->error[0] >= 0);
}

static void given_full_pipe_that_blocks_when_logged_then_dropped_too(void **state)
{
    struct fixture *f = *state;
    uint64_t before = log_dropped();

    assert_int_equal(fcntl(f->error[1], F_SETFL, 0), 0);
    log_to(f->error[1], -1);
    for (int i = 0; i < 5000; i++)
        log_event(LOG_INFO, "flood", "", "%0500d", i);
    assert_true(log_dropped() > before);
}

static void given_access_object_when_logged_then_line_or_dropped(void **state)
{
    struct fixture *f = *state;
    uint64_t before = log_dropped();
    struct buf object;

    buf_init(&object, 10000);
    buf_str(&object, "{\"status\":200}");
    log_access(&object);
    log_flush();
    assert_string_equal(read_text(f, f->access[0]), "{\"status\":200}\n");
    buf_printf(&object, "%05000d", 1);
    log_access(&object);
    assert_int_equal(log_dropped(), before + 1);
    assert_string_equal(read_text(f, f->access[0]), "");
    log_to(f->error[1], -1);
    log_access(&object);
    assert_int_equal(log_dropped(), before + 1); /* switched off is not dropped */
    buf_clear(&object);
}

static void given_many_access_lines_when_flushed_then_each_came_once(void **state)
{
    struct fixture *f = *state;
    struct buf object;
    size_t lines = 0;

    log_to(f->error[1], f->access[1]);
    buf_init(&object, 1000);
    for (int i = 0; i < 15; i++) {
        buf_reset(&object);
        buf_printf(&object, "{\"line\":\"%0400d\"}", i);
        log_access(&object);
    }
    log_flush();
    for (const char *text = read_text(f, f->access[0]); *text != '\0'; text++)
        lines += *text == '\n';
    assert_int_equal(lines, 15);
    log_flush();
    assert_string_equal(read_text(f, f->access[0]), "");
    buf_clear(&object);
}

static void given_access_line_when_it_has_waited_long_enough_then_written(void **state)
{
    struct fixture *f = *state;
    struct buf object;

    buf_init(&object, 100);
    buf_str(&object, "{}");
    assert_int_equal(log_flush_due(1000), -1);
    log_access(&object);
    assert_int_equal(log_flush_due(1000), LOG_DELAY_MS);
    assert_int_equal(log_flush_due(1000 + LOG_DELAY_MS - 1), 1);
    assert_string_equal(read_text(f, f->access[0]), "");
    assert_int_equal(log_flush_due(1000 + LOG_DELAY_MS), -1);
    assert_string_equal(read_text(f, f->access[0]), "{}\n");
    buf_clear(&object);
}

static void given_terminal_when_logged_then_short_line_without_control_bytes(void **state)
{
    struct fixture *f = *state;
    const char *text;
    int master, slave;

    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    log_to(slave, -1);
    log_event(LOG_ERROR, "bad_bytes", "\"k\":1", "evil\x1b[2J\x7f\xc2\x9b\xff \xd0\x9f");
    text = read_text(f, master);
    assert_non_null(
        strstr(text, " error worker 3: evil\\x1b[2J\\x7f\\xc2\\x9b\\xff \xd0\x9f (\"k\":1)"));
    assert_null(strchr(text, 0x1b));
    log_to(f->error[1], -1);
    close(master);
    close(slave);
}

static void given_level_names_when_parsed_then_there_and_back(void **state)
{
    enum log_level level;

    for (enum log_level l = LOG_DEBUG; l <= LOG_ERROR; l++) {
        assert_int_equal(log_level_parse(log_level_name(l), &level), 0);
        assert_int_equal(level, l);
    }
    assert_int_equal(log_level_parse("loud", &level), -EINVAL);
}

#define WITH_PIPES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PIPES(given_event_when_logged_then_one_json_line),
        WITH_PIPES(given_requests_event_when_logged_then_its_id_is_a_field),
        WITH_PIPES(given_level_when_below_then_silent),
        WITH_PIPES(given_very_long_parts_when_logged_then_still_one_valid_line),
        WITH_PIPES(given_full_pipe_when_logged_then_dropped_and_counted_at_once),
        WITH_PIPES(given_full_pipe_that_blocks_when_logged_then_dropped_too),
        WITH_PIPES(given_access_object_when_logged_then_line_or_dropped),
        WITH_PIPES(given_terminal_when_logged_then_short_line_without_control_bytes),
        WITH_PIPES(given_access_line_when_it_has_waited_long_enough_then_written),
        WITH_PIPES(given_many_access_lines_when_flushed_then_each_came_once),
        cmocka_unit_test(given_level_names_when_parsed_then_there_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
