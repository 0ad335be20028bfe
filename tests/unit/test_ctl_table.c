/* xrouterctl is no library: its tables are compiled into this test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/ctl/output.c"

static void given_cells_when_rendered_then_columns_line_up(void **state)
{
    struct ctl_table t;
    struct buf out;

    buf_init(&out, 1000);
    ctl_table_init(&t, "lrl");
    ctl_table_heading(&t, "NAME|COUNT|LAST");
    ctl_table_cell(&t, "ключ");
    ctl_table_cell_i64(&t, 7);
    ctl_table_cell(&t, "x");
    ctl_table_cell(&t, "a longer one");
    ctl_table_cell_i64(&t, -123456);
    ctl_table_cell(&t, NULL);
    ctl_table_render(&t, &out);
    assert_string_equal(buf_text(&out), "NAME            COUNT  LAST\n"
                                        "ключ                7  x\n"
                                        "a longer one  -123456  -\n");
    ctl_table_clear(&t);
    buf_clear(&out);
}

static void given_control_characters_when_rendered_then_question_marks(void **state)
{
    struct ctl_table t;
    struct buf out;

    buf_init(&out, 1000);
    ctl_table_init(&t, "l");
    ctl_table_cell(&t, "a\x1b[2J\nb");
    ctl_table_cell(&t, "");
    ctl_table_render(&t, &out);
    assert_string_equal(buf_text(&out), "a?[2J?b\n-\n");
    ctl_table_clear(&t);
    buf_clear(&out);
}

static void given_incomplete_text_when_printed_then_refused(void **state)
{
    struct buf out;

    buf_init(&out, 3);
    buf_str(&out, "1234");
    assert_int_equal(ctl_print(&out), CTL_REFUSED);
    buf_clear(&out);
}

static void given_complaints_when_made_then_their_exit_status(void **state)
{
    assert_int_equal(ctl_usage_error("this is the %s", "first"), CTL_USAGE);
    assert_int_equal(ctl_refuse("and this the second"), CTL_REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_cells_when_rendered_then_columns_line_up),
        cmocka_unit_test(given_control_characters_when_rendered_then_question_marks),
        cmocka_unit_test(given_incomplete_text_when_printed_then_refused),
        cmocka_unit_test(given_complaints_when_made_then_their_exit_status),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
