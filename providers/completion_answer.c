#include "providers/completion_answer.h"

#include <string.h>

#include "common/json_copy.h"

#define PREFIX "data: "
#define PREFIX_LEN (sizeof(PREFIX) - 1)

/* The answer's text as it is in JSON; "" for a delta that has none. */
static struct json_span text_of(struct json_span choice)
{
    static const char *const paths[] = {"delta.content", "message.content"};
    struct json_span text;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        if (json_slice(choice.at, choice.len, paths[i], &text.at, &text.len) == 0 &&
            text.at[0] == '"')
            return text;
    return (struct json_span){"\"\"", 2};
}

static void put_choice(struct json_span choice, struct buf *out)
{
    struct json_span text = text_of(choice);
    struct json_copy c;
    struct json_member m;
    struct buf *value;

    json_copy_open(&c, choice, out);
    while (json_copy_next(&c, &m))
        if (json_name_is(m.name, "index") || json_name_is(m.name, "finish_reason"))
            json_copy_keep(&c, &m);
    value = json_copy_add(&c, "text");
    buf_append(value, text.at, text.len);
    buf_str(json_copy_add(&c, "logprobs"), "null");
    json_copy_close(&c);
}

static void put_choices(struct json_span choices, struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, choices, out);
    while (json_copy_next(&c, &m))
        put_choice(m.value, json_copy_value(&c, &m));
    json_copy_close(&c);
}

int completion_answer_put(const char *chat, size_t len, struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, (struct json_span){chat, len}, out);
    while (json_copy_next(&c, &m)) {
        if (json_name_is(m.name, "object"))
            buf_str(json_copy_value(&c, &m), "\"text_completion\"");
        else if (json_name_is(m.name, "choices") && m.value.at[0] == '[')
            put_choices(m.value, json_copy_value(&c, &m));
        else
            json_copy_keep(&c, &m);
    }
    return json_copy_close(&c);
}

int completion_answer_put_events(const char *events, size_t len, struct buf *out)
{
    const char *end = events + len;

    while (events < end) {
        const char *line_end = memchr(events, '\n', (size_t)(end - events));
        size_t line_len = (size_t)((line_end == NULL ? end : line_end) - events);

        if (line_len > PREFIX_LEN && memcmp(events, PREFIX, PREFIX_LEN) == 0 &&
            events[PREFIX_LEN] == '{') {
            buf_append(out, PREFIX, PREFIX_LEN);
            completion_answer_put(events + PREFIX_LEN, line_len - PREFIX_LEN, out);
        } else {
            buf_append(out, events, line_len);
        }
        if (line_end == NULL)
            break;
        buf_byte(out, '\n');
        events = line_end + 1;
    }
    return out->err;
}
