#include "providers/openai_plain.h"

#include <string.h>

#define FRAME_MAX 2048
#define TEXT_MAX SSE_EVENT_MAX

/* Where a chunk's text may be, and where it is then in the client's. */
struct place {
    const char *in, *out;
};
static const struct place places[] = {
    {"choices.0.delta.content", "choices.0.delta.content"},
    {"choices.0.delta.reasoning_content", "choices.0.delta.reasoning_content"},
    {"choices.0.delta.reasoning", "choices.0.delta.reasoning_content"},
    {"choices.0.delta.reasoning", "choices.0.delta.reasoning"},
    {"choices.0.delta.tool_calls.0.function.arguments",
     "choices.0.delta.tool_calls.0.function.arguments"},
};
static const char padding_name[] = "obfuscation";

void plain_forms_init(struct plain_forms *f)
{
    memset(f, 0, sizeof(*f));
    for (size_t i = 0; i < PLAIN_FORMS; i++) {
        buf_init(&f->all[i].in.bytes, FRAME_MAX);
        buf_init(&f->all[i].out.bytes, FRAME_MAX);
    }
    buf_init(&f->text, TEXT_MAX);
}

void plain_forms_clear(struct plain_forms *f)
{
    for (size_t i = 0; i < PLAIN_FORMS; i++) {
        buf_clear(&f->all[i].in.bytes);
        buf_clear(&f->all[i].out.bytes);
    }
    buf_clear(&f->text);
}

/* The non-empty string at path, without its quotes. */
static bool find_string(struct json_span chunk, const char *path, struct json_span *out)
{
    struct json_span value;

    if (json_slice(chunk.at, chunk.len, path, &value.at, &value.len) < 0)
        return false;
    *out = json_inside(value);
    return out->len > 0;
}

static bool find_text(struct json_span in, struct json_span out, struct json_span *in_text,
                      struct json_span *out_text)
{
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (find_string(in, places[i].in, in_text) && find_string(out, places[i].out, out_text))
            return in_text->len == out_text->len &&
                   memcmp(in_text->at, out_text->at, in_text->len) == 0;
    return false;
}

/* Cuts the chunk around its holes; padding NULL = there is one hole. */
static int keep_frame(struct plain_frame *frame, struct json_span chunk, struct json_span text,
                      const struct json_span *padding)
{
    const char *end = chunk.at + chunk.len;
    const char *behind = text.at + text.len;
    const char *middle_end = padding != NULL ? padding->at : end;

    frame->head_len = (size_t)(text.at - chunk.at);
    frame->middle_len = (size_t)(middle_end - behind);
    buf_reset(&frame->bytes);
    buf_append(&frame->bytes, chunk.at, frame->head_len);
    buf_append(&frame->bytes, behind, frame->middle_len);
    if (padding != NULL)
        buf_append(&frame->bytes, padding->at + padding->len,
                   (size_t)(end - padding->at - padding->len));
    return frame->bytes.err;
}

void plain_forms_learn(struct plain_forms *f, struct json_span in, struct json_span out)
{
    struct plain_form *form = &f->all[f->next];
    struct json_span in_text, out_text, in_padding = {NULL, 0}, out_padding = {NULL, 0};

    if (!find_text(in, out, &in_text, &out_text))
        return;
    form->has_padding = find_string(in, padding_name, &in_padding) &&
                        find_string(out, padding_name, &out_padding) &&
                        in_padding.at > in_text.at && out_padding.at > out_text.at;
    if (keep_frame(&form->in, in, in_text, form->has_padding ? &in_padding : NULL) < 0 ||
        keep_frame(&form->out, out, out_text, form->has_padding ? &out_padding : NULL) < 0) {
        buf_reset(&form->in.bytes);
        return;
    }
    f->last = f->next;
    f->next = (f->next + 1) % PLAIN_FORMS;
}

/* Whether the bytes at `at` are the frame's from offset on. */
static bool fits(const struct plain_frame *frame, size_t offset, size_t len, const char *at)
{
    return memcmp(frame->bytes.data + offset, at, len) == 0;
}

/* Whether the chunk has the form. The holes are strings in the one as in the other, so what is
 * around them has the same meaning in both. */
static bool match(const struct plain_form *form, struct json_span in, struct json_span *text,
                  bool *escaped, struct json_span *padding)
{
    const struct plain_frame *frame = &form->in;
    size_t tail_len = frame->bytes.len - frame->head_len - frame->middle_len;
    const char *end = in.at + in.len;
    const char *stop;
    bool ignored;

    if (frame->bytes.len == 0 || in.len < frame->bytes.len ||
        !fits(frame, frame->head_len + frame->middle_len, tail_len, end - tail_len) ||
        !fits(frame, 0, frame->head_len, in.at))
        return false;
    if (!form->has_padding &&
        !fits(frame, frame->head_len, frame->middle_len, end - frame->middle_len))
        return false;
    text->at = in.at + frame->head_len;
    stop = json_string_end(text->at, end, escaped);
    if (stop == NULL || (size_t)(end - stop) < frame->middle_len + tail_len)
        return false;
    text->len = (size_t)(stop - text->at);
    if (!form->has_padding)
        return (size_t)(end - stop) == frame->middle_len;
    if (!fits(frame, frame->head_len, frame->middle_len, stop))
        return false;
    padding->at = stop + frame->middle_len;
    stop = json_string_end(padding->at, end, &ignored);
    if (stop == NULL || stop != end - tail_len)
        return false;
    padding->len = (size_t)(stop - padding->at);
    return true;
}

/* False: there is no memory to read the text, nothing has happened. */
static bool tell(struct plain_forms *f, struct json_span text, bool escaped,
                 struct token_meter *meter)
{
    if (text.len == 0)
        return true;
    if (!escaped) {
        meter->on_text(meter, text.at, text.len);
        return true;
    }
    buf_reset(&f->text);
    if (json_unescape(&f->text, text.at, text.len) < 0)
        return false;
    meter->on_text(meter, f->text.data, f->text.len);
    return true;
}

bool plain_forms_relay(struct plain_forms *f, struct json_span in, struct token_meter *meter,
                       struct buf *out)
{
    struct json_span text = {NULL, 0}, padding = {NULL, 0};
    bool escaped = false;
    const struct plain_form *form = NULL;
    const struct plain_frame *frame;
    size_t behind;

    for (unsigned i = 0; i < PLAIN_FORMS && form == NULL; i++) {
        unsigned at = (f->last + i) % PLAIN_FORMS;

        if (match(&f->all[at], in, &text, &escaped, &padding)) {
            form = &f->all[at];
            f->last = at;
        }
    }
    if (form == NULL || !tell(f, text, escaped, meter))
        return false;
    frame = &form->out;
    behind = frame->head_len + frame->middle_len;
    buf_append(out, "data: ", 6);
    buf_append(out, frame->bytes.data, frame->head_len);
    buf_append(out, text.at, text.len);
    buf_append(out, frame->bytes.data + frame->head_len, frame->middle_len);
    if (form->has_padding) {
        buf_append(out, padding.at, padding.len);
        buf_append(out, frame->bytes.data + behind, frame->bytes.len - behind);
    }
    buf_append(out, "\n\n", 2);
    return true;
}
