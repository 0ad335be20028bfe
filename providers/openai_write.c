#include "providers/openai.h"

#include <string.h>

#include "common/json_copy.h"

static struct json_span find(struct json_span object, const char *path)
{
    struct json_span value = {NULL, 0};

    if (json_slice(object.at, object.len, path, &value.at, &value.len) < 0)
        return (struct json_span){NULL, 0};
    return value;
}

static bool is_null(struct json_span value)
{
    return value.at == NULL || (value.len == 4 && memcmp(value.at, "null", 4) == 0);
}

/* The place of a call that came without its index: its id's if that was there before. A piece with
 * neither id nor name goes on with the call before it. */
static int64_t number_call(struct openai_choices *choices, size_t choice, struct json_span call)
{
    struct json_span id = find(call, "id");
    bool has_id = !is_null(id) && id.len > 2;
    uint64_t hash = has_id ? openai_hash(id.at, id.len) | 1 : 0;
    int64_t count = 0;

    for (size_t i = 0; i < choices->slot_count; i++) {
        if (choices->slots[i].choice != choice)
            continue;
        if (has_id && choices->slots[i].id == hash)
            return count;
        count++;
    }
    if (count > 0 && !has_id && is_null(find(call, "function.name")))
        return count - 1;
    if (choices->slot_count < OPENAI_CALLS_MAX)
        choices->slots[choices->slot_count++] = (struct openai_slot){choice, hash};
    return count;
}

static void write_call(const struct openai_writing *w, size_t choice, struct json_span call,
                       struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, call, out);
    while (json_copy_next(&c, &m))
        json_copy_keep(&c, &m);
    if (find(call, "index").at == NULL)
        buf_i64(json_copy_add(&c, "index"), number_call(w->choices, choice, call));
    json_copy_close(&c);
}

static void write_calls(const struct openai_writing *w, size_t choice, struct json_span calls,
                        struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, calls, out);
    while (json_copy_next(&c, &m))
        write_call(w, choice, m.value, json_copy_value(&c, &m));
    json_copy_close(&c);
}

/* The texts of a list's parts, one behind the other: what is between quotes needs no second
 * escaping. Either those inside "thinking" or the others. Returns whether there was one. */
static bool write_parts(struct json_span list, bool thinking, struct buf *out)
{
    struct json_walk walk;
    struct json_member m;
    bool any = false;

    json_walk_begin(&walk, list);
    while (json_walk_next(&walk, &m)) {
        struct json_span thought = find(m.value, "thinking");
        struct json_span text = thought.at != NULL ? thought : find(m.value, "text");

        if ((thought.at != NULL) != thinking || is_null(text))
            continue;
        if (text.at[0] == '[') {
            any = write_parts(text, false, out) || any;
        } else if (text.at[0] == '"') {
            text = json_inside(text);
            buf_append(out, text.at, text.len);
            any = true;
        }
    }
    return any;
}

/* Content that is a list becomes OpenAI's two strings. */
static void write_list(struct json_copy *c, const struct json_member *m, struct buf *reasoning)
{
    struct buf *out = json_copy_value(c, m);
    size_t start = out->len;

    buf_byte(out, '"');
    if (write_parts(m->value, false, out)) {
        buf_byte(out, '"');
    } else if (out->err == 0) {
        out->len = start;
        buf_str(out, "null");
    }
    buf_byte(reasoning, '"');
    if (!write_parts(m->value, true, reasoning))
        buf_reset(reasoning);
    else
        buf_byte(reasoning, '"');
}

static void write_message(const struct openai_writing *w, size_t choice, struct json_span message,
                          struct buf *out)
{
    bool renames =
        w->flavor->reasoning == REASONING_SHORT && find(message, "reasoning_content").at == NULL;
    struct json_copy c;
    struct json_member m;
    struct buf reasoning;

    buf_init(&reasoning, out->max);
    json_copy_open(&c, message, out);
    while (json_copy_next(&c, &m)) {
        if (renames && json_name_is(m.name, "reasoning"))
            buf_append(json_copy_renamed(&c, &m, "reasoning_content"), m.value.at, m.value.len);
        else if (json_name_is(m.name, "content") && m.value.at[0] == '[')
            write_list(&c, &m, &reasoning);
        else if (w->is_chunk && json_name_is(m.name, "tool_calls") && m.value.at[0] == '[')
            write_calls(w, choice, m.value, json_copy_value(&c, &m));
        else
            json_copy_keep(&c, &m);
    }
    if (reasoning.len > 0)
        buf_append(json_copy_add(&c, "reasoning_content"), reasoning.data, reasoning.len);
    if (reasoning.err < 0 && out->err == 0)
        out->err = reasoning.err;
    json_copy_close(&c);
    buf_clear(&reasoning);
}

static void write_finish(const struct openai_writing *w, size_t choice, struct json_copy *c,
                         const struct json_member *m)
{
    struct json_span raw = json_inside(m->value);
    const char *ours;
    char reason[64];
    struct buf text;

    if (raw.len == 0) { /* null */
        json_copy_keep(c, m);
        return;
    }
    buf_init_fixed(&text, reason, sizeof(reason));
    json_unescape(&text, raw.at, raw.len);
    if (buf_text(&text) == NULL) /* longer than any that we know */
        reason[0] = '\0';
    ours = openai_finish_reason(reason, &w->choices->all[choice]);
    if (ours == NULL || strcmp(ours, reason) == 0)
        json_copy_keep(c, m);
    else
        json_put_text(json_copy_value(c, m), ours);
}

static size_t choice_number(struct json_span choice)
{
    struct json_span index = find(choice, "index");
    size_t value = 0;

    for (size_t i = 0; i < index.len && value < OPENAI_CHOICES_MAX; i++) {
        if (index.at[i] < '0' || index.at[i] > '9')
            break;
        value = value * 10 + (size_t)(index.at[i] - '0');
    }
    return value < OPENAI_CHOICES_MAX ? value : 0;
}

static void write_choice(const struct openai_writing *w, struct json_span choice, struct buf *out)
{
    size_t number = choice_number(choice);
    bool has_delta = find(choice, "delta").at != NULL;
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, choice, out);
    while (json_copy_next(&c, &m)) {
        bool is_message = json_name_is(m.name, "message");

        if ((is_message || json_name_is(m.name, "delta")) && m.value.at[0] == '{') {
            struct buf *to = is_message && w->is_chunk && !has_delta
                                 ? json_copy_renamed(&c, &m, "delta")
                                 : json_copy_value(&c, &m);

            write_message(w, number, m.value, to);
        } else if (json_name_is(m.name, "finish_reason")) {
            write_finish(w, number, &c, &m);
        } else {
            json_copy_keep(&c, &m);
        }
    }
    json_copy_close(&c);
}

static void write_choices(const struct openai_writing *w, struct json_span choices, struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, choices, out);
    while (json_copy_next(&c, &m))
        write_choice(w, m.value, json_copy_value(&c, &m));
    json_copy_close(&c);
}

static void write_usage(const struct openai_writing *w, struct json_copy *c,
                        const struct json_member *m)
{
    switch (w->usage) {
    case USAGE_AS_IS:
        json_copy_keep(c, m);
        return;
    case USAGE_NULL:
        buf_str(json_copy_value(c, m), "null");
        return;
    case USAGE_OUT:
        return;
    }
}

int openai_write_answer(const struct openai_writing *w, struct json_span text, struct buf *out)
{
    bool has_id = false, has_model = false;
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, text, out);
    while (json_copy_next(&c, &m)) {
        if (json_name_is(m.name, "id")) {
            has_id = true;
            json_put_text(json_copy_value(&c, &m), w->identity->id);
        } else if (json_name_is(m.name, "model")) {
            has_model = true;
            json_put_text(json_copy_value(&c, &m), w->identity->model);
        } else if (w->is_chunk && json_name_is(m.name, "object")) {
            buf_str(json_copy_value(&c, &m), "\"chat.completion.chunk\"");
        } else if (json_name_is(m.name, "usage")) {
            write_usage(w, &c, &m);
        } else if (w->needs_edit && json_name_is(m.name, "choices") && m.value.at[0] == '[') {
            write_choices(w, m.value, json_copy_value(&c, &m));
        } else {
            json_copy_keep(&c, &m);
        }
    }
    if (!has_id)
        json_put_text(json_copy_add(&c, "id"), w->identity->id);
    if (!has_model)
        json_put_text(json_copy_add(&c, "model"), w->identity->model);
    return json_copy_close(&c);
}
