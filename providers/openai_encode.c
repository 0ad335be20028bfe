/* The request: the client's own bytes, less what is the gateway's, with what must differ spliced
 * in. */
#include "providers/openai.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "common/json_copy.h"

#define NAME_BYTES 64
#define ID_BYTES 9

struct encoder {
    const struct openai_flavor *flavor;
    const char *upstream_model;
    const struct model_request *req;
    struct buf *out, *ignored;
    bool has_model, has_stream_options;
};

static bool is_given(const cJSON *item)
{
    return item != NULL && !cJSON_IsNull(item);
}

/* Whether leaving the value out changes nothing. */
static bool is_off(struct json_span value)
{
    static const char *const offs[] = {"null", "false", "0", "\"\"", "[]", "{}"};

    for (size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++)
        if (strlen(offs[i]) == value.len && memcmp(offs[i], value.at, value.len) == 0)
            return true;
    return false;
}

static bool is_listed(const char *names, const char *all, const char *name)
{
    return openai_names_have(names, name) || (all != NULL && !openai_names_have(all, name));
}

/* Without these the answer would lack what the client has asked to see in it: that is no parameter
 * to be ignored. */
static const char telling_fields[] = "n|logprobs|top_logprobs|audio|web_search_options|functions";

static bool is_refused_field(const struct openai_flavor *f, const char *name)
{
    return is_listed(f->fields_without, f->fields_all, name);
}

/* Adds prefix and name, unless they are there already. */
static void note_ignored(struct encoder *x, const char *prefix, const char *name)
{
    char full[NAME_BYTES + 16];
    struct buf text;
    const char *so_far;
    size_t len;

    buf_init_fixed(&text, full, sizeof(full));
    buf_str(&text, prefix);
    buf_str(&text, name);
    if (buf_text(&text) == NULL)
        return;
    so_far = x->ignored->len > 0 ? buf_text(x->ignored) : NULL;
    for (len = strlen(full); so_far != NULL; so_far++) {
        so_far = strstr(so_far, full);
        if (so_far == NULL)
            break;
        if (so_far[len] == '\0' || so_far[len] == ',')
            return;
    }
    if (x->ignored->len > 0)
        buf_str(x->ignored, ", ");
    buf_str(x->ignored, full);
}

/* The name with its escapes undone; "" for one too long to be any that we know. */
static void read_name(struct json_span name, char out[NAME_BYTES])
{
    struct buf text;

    buf_init_fixed(&text, out, NAME_BYTES);
    json_unescape(&text, name.at, name.len);
    if (buf_text(&text) == NULL)
        out[0] = '\0';
}

static const char id_letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/* The text goes on with a quote. */
static bool is_id9(const char *text, size_t len)
{
    return len == ID_BYTES && strspn(text, id_letters) >= len;
}

/* FNV-1a */
uint64_t openai_hash(const char *text, size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

/* Digits of base 62: the same id always becomes the same, in the call and in its result, in this
 * request and in later ones. */
static void put_id9(struct buf *out, const char *id, size_t len)
{
    uint64_t hash = openai_hash(id, len);

    buf_byte(out, '"');
    for (int i = 0; i < ID_BYTES; i++, hash /= 62)
        buf_byte(out, id_letters[hash % 62]);
    buf_byte(out, '"');
}

static void copy_id(struct json_copy *c, const struct json_member *m)
{
    struct json_span raw = json_inside(m->value);
    struct buf id;

    if (m->value.at[0] != '"' || is_id9(raw.at, raw.len)) {
        json_copy_keep(c, m);
        return;
    }
    buf_init(&id, raw.len + 1);
    if (json_unescape(&id, raw.at, raw.len) < 0)
        c->out->err = id.err;
    else
        put_id9(json_copy_value(c, m), id.data, id.len);
    buf_clear(&id);
}

static void copy_calls(struct json_span calls, struct buf *out)
{
    struct json_copy list, call;
    struct json_member element, m;

    json_copy_open(&list, calls, out);
    while (json_copy_next(&list, &element)) {
        json_copy_open(&call, element.value, json_copy_value(&list, &element));
        while (json_copy_next(&call, &m)) {
            if (json_name_is(m.name, "id"))
                copy_id(&call, &m);
            else
                json_copy_keep(&call, &m);
        }
        json_copy_close(&call);
    }
    json_copy_close(&list);
}

static bool is_role(struct json_span message, const char *role)
{
    struct json_span value = {NULL, 0};

    return json_slice(message.at, message.len, "role", &value.at, &value.len) == 0 &&
           json_name_is(json_inside(value), role);
}

static void copy_message(struct encoder *x, struct json_span message, struct buf *out)
{
    const struct openai_flavor *f = x->flavor;
    struct json_copy c;
    struct json_member m;
    char name[NAME_BYTES];

    json_copy_open(&c, message, out);
    while (json_copy_next(&c, &m)) {
        read_name(m.name, name);
        if (is_listed(f->message_without, f->message_all, name) &&
            !(strcmp(name, "name") == 0 && is_role(message, "function"))) {
            if (!is_off(m.value))
                note_ignored(x, "messages[].", name);
        } else if (f->no_developer && strcmp(name, "role") == 0 &&
                   json_name_is(json_inside(m.value), "developer")) {
            buf_str(json_copy_value(&c, &m), "\"system\"");
        } else if (f->alnum9 && strcmp(name, "tool_calls") == 0) {
            copy_calls(m.value, json_copy_value(&c, &m));
        } else if (f->alnum9 && strcmp(name, "tool_call_id") == 0) {
            copy_id(&c, &m);
        } else {
            json_copy_keep(&c, &m);
        }
    }
    json_copy_close(&c);
}

static void copy_messages(struct encoder *x, struct json_copy *root, const struct json_member *m)
{
    const struct openai_flavor *f = x->flavor;
    struct json_copy c;
    struct json_member message;

    if (f->message_all == NULL && f->message_without == NULL && !f->alnum9 && !f->no_developer) {
        json_copy_keep(root, m);
        return;
    }
    json_copy_open(&c, m->value, json_copy_value(root, m));
    while (json_copy_next(&c, &message))
        copy_message(x, message.value, json_copy_value(&c, &message));
    json_copy_close(&c);
}

/* Usage is asked for in every stream, whether the client wants to see it or not. */
static void copy_stream_options(struct encoder *x, struct json_copy *root,
                                const struct json_member *m)
{
    struct json_copy c;
    struct json_member option;
    bool is_there = false;

    x->has_stream_options = true;
    if (x->flavor->stream_usage == STREAM_USAGE_NEVER_ASK)
        return;
    if (!x->req->stream || x->req->include_usage ||
        x->flavor->stream_usage == STREAM_USAGE_ALWAYS) {
        json_copy_keep(root, m);
        return;
    }
    if (m->value.at[0] != '{') {
        buf_str(json_copy_value(root, m), "{\"include_usage\":true}");
        return;
    }
    json_copy_open(&c, m->value, json_copy_value(root, m));
    while (json_copy_next(&c, &option)) {
        if (json_name_is(option.name, "include_usage")) {
            is_there = true;
            buf_str(json_copy_value(&c, &option), "true");
        } else {
            json_copy_keep(&c, &option);
        }
    }
    if (!is_there)
        buf_str(json_copy_add(&c, "include_usage"), "true");
    json_copy_close(&c);
}

/* What the member is called upstream; NULL = another one says the same and counts instead. */
static const char *upstream_name(const struct encoder *x, const char *name)
{
    const struct openai_flavor *f = x->flavor;
    const cJSON *root = x->req->root;

    if (f->max_tokens != NULL && strcmp(name, "max_completion_tokens") == 0)
        return is_given(json_get(root, name)) ? f->max_tokens : NULL;
    if (f->max_tokens != NULL && strcmp(name, "max_tokens") == 0)
        return is_given(json_get(root, "max_completion_tokens")) ? NULL : f->max_tokens;
    if (f->seed != NULL && strcmp(name, "seed") == 0)
        return is_given(json_get(root, f->seed)) ? NULL : f->seed;
    return name;
}

static void copy_other(struct encoder *x, struct json_copy *c, const struct json_member *m,
                       const char *name)
{
    const char *there = upstream_name(x, name);

    if (there == NULL)
        return;
    if (is_refused_field(x->flavor, there)) {
        if (!is_off(m->value) && !openai_names_have(telling_fields, name))
            note_ignored(x, "", name);
    } else if (strcmp(there, name) != 0) {
        buf_append(json_copy_renamed(c, m, there), m->value.at, m->value.len);
    } else {
        json_copy_keep(c, m);
    }
}

static void copy_field(struct encoder *x, struct json_copy *c, const struct json_member *m)
{
    const struct openai_flavor *f = x->flavor;
    char name[NAME_BYTES];

    read_name(m->name, name);
    if (strcmp(name, "model") == 0) {
        x->has_model = true;
        json_put_text(json_copy_value(c, m), x->upstream_model);
    } else if (strcmp(name, "messages") == 0) {
        copy_messages(x, c, m);
    } else if (strcmp(name, "stream_options") == 0) {
        copy_stream_options(x, c, m);
    } else if (strcmp(name, "models") == 0 || strcmp(name, "provider") == 0) {
        return; /* our own router has read them */
    } else if (!f->routes && (strcmp(name, "route") == 0 || strcmp(name, "transforms") == 0)) {
        note_ignored(x, "", name);
    } else if (f->required != NULL && strcmp(name, "tool_choice") == 0 &&
               json_name_is(json_inside(m->value), "required")) {
        json_put_text(json_copy_value(c, m), f->required);
    } else {
        copy_other(x, c, m, name);
    }
}

bool openai_supports(const struct provider_config *p, const char *parameter)
{
    const struct openai_flavor *f = openai_flavor_find(p->flavor);
    bool is_limit =
        strcmp(parameter, "max_tokens") == 0 || strcmp(parameter, "max_completion_tokens") == 0;

    if (strcmp(parameter, "stream_options") == 0)
        return true; /* if not there, then here */
    if (is_limit && f->max_tokens != NULL)
        parameter = f->max_tokens;
    else if (f->seed != NULL && strcmp(parameter, "seed") == 0)
        parameter = f->seed;
    return !is_refused_field(f, parameter);
}

static bool asks_for(const char *name, const cJSON *value)
{
    if (cJSON_IsNumber(value))
        return value->valuedouble > (strcmp(name, "n") == 0 ? 1 : 0);
    if (cJSON_IsArray(value) || cJSON_IsObject(value))
        return value->child != NULL;
    return cJSON_IsTrue(value);
}

static int refuse_unsupported(const struct openai_flavor *f, const cJSON *root, struct error *e)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, root)
    {
        if (openai_names_have(telling_fields, item->string) && is_refused_field(f, item->string) &&
            asks_for(item->string, item))
            return error_set(e, XR_EUNSUPPORTED, item->string,
                             "'%s' is not supported by the model's provider.", item->string);
    }
    return 0;
}

int openai_encode_body(const struct openai_flavor *flavor, const char *upstream_model,
                       const struct model_request *req, struct buf *out, struct buf *ignored,
                       struct error *e)
{
    struct encoder x = {flavor, upstream_model, req, out, ignored, false, false};
    struct json_copy c;
    struct json_member m;
    int rc = refuse_unsupported(flavor, req->root, e);

    if (rc < 0)
        return rc;
    json_copy_open(&c, (struct json_span){req->text, req->len}, out);
    while (json_copy_next(&c, &m))
        copy_field(&x, &c, &m);
    if (!x.has_model) /* the gateway's default is meant */
        json_put_text(json_copy_add(&c, "model"), upstream_model);
    if (req->stream && !x.has_stream_options && flavor->stream_usage == STREAM_USAGE_ASK)
        buf_str(json_copy_add(&c, "stream_options"), "{\"include_usage\":true}");
    rc = json_copy_close(&c);
    if (rc == -EMSGSIZE)
        return error_set(e, XR_ETOOLARGE, NULL, NULL);
    return rc < 0 ? error_set(e, rc, NULL, NULL) : 0;
}

int openai_encode_embeddings(const char *upstream_model, const struct model_request *req,
                             struct buf *out, struct error *e)
{
    struct json_copy c;
    struct json_member m;
    bool has_model = false;
    int rc;

    json_copy_open(&c, (struct json_span){req->text, req->len}, out);
    while (json_copy_next(&c, &m)) {
        if (json_name_is(m.name, "model")) {
            has_model = true;
            json_put_text(json_copy_value(&c, &m), upstream_model);
        } else if (!json_name_is(m.name, "models") && !json_name_is(m.name, "provider")) {
            json_copy_keep(&c, &m);
        }
    }
    if (!has_model)
        json_put_text(json_copy_add(&c, "model"), upstream_model);
    rc = json_copy_close(&c);
    if (rc == -EMSGSIZE)
        return error_set(e, XR_ETOOLARGE, NULL, NULL);
    return rc < 0 ? error_set(e, rc, NULL, NULL) : 0;
}
