#include "tests/sim/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/dialect.h"
#include "tests/sim/ids.h"
#include "tests/sim/sim.h"

#define FILES_MAX 1024
#define NAME_BYTES 256
#define TYPE_BYTES 96
#define BOUNDARY_BYTES 74 /* RFC 2046: 70, the dashes in front, a NUL */
#define PREFIX "/v1/files/"
#define SESSION_IMAGES_MAX 10
#define MIB ((size_t)1024 * 1024)

enum modality { MODALITY_IMAGE, MODALITY_AUDIO, MODALITY_TEXT };

static const char *const modality_names[] = {"image", "audio", "text"};
static const size_t modality_bytes[] = {15 * MIB, 35 * MIB, 40 * MIB};

static const struct {
    const char *type;
    enum modality modality;
} types[] = {
    {"image/jpeg", MODALITY_IMAGE},
    {"image/png", MODALITY_IMAGE},
    {"image/tiff", MODALITY_IMAGE},
    {"image/bmp", MODALITY_IMAGE},
    {"audio/mp4", MODALITY_AUDIO},
    {"audio/mp3", MODALITY_AUDIO},
    {"audio/mpeg", MODALITY_AUDIO},
    {"audio/x-m4a", MODALITY_AUDIO},
    {"audio/wav", MODALITY_AUDIO},
    {"audio/webm", MODALITY_AUDIO},
    {"audio/ogg", MODALITY_AUDIO},
    {"audio/opus", MODALITY_AUDIO},
    {"text/plain", MODALITY_TEXT},
    {"application/msword", MODALITY_TEXT},
    {"application/pdf", MODALITY_TEXT},
    {"application/epub+zip", MODALITY_TEXT},
    {"application/vnd.ms-powerpoint", MODALITY_TEXT},
    {"application/vnd.openxmlformats-officedocument.wordprocessingml.document", MODALITY_TEXT},
    {"application/vnd.openxmlformats-officedocument.presentationml.presentation", MODALITY_TEXT},
    {"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", MODALITY_TEXT},
};

struct file {
    char id[UUID_BYTES]; /* "" = free */
    char name[NAME_BYTES];
    char type[TYPE_BYTES];
    enum modality modality;
    const struct sim_client *owner;
    int64_t created_at_s;
    char *data; /* owned */
    size_t len;
};

struct file_store {
    struct file files[FILES_MAX];
};

/* One part of a multipart body. */
struct part {
    char name[NAME_BYTES];
    char filename[NAME_BYTES];
    char type[TYPE_BYTES];
    const char *data;
    size_t len;
};

struct file_store *files_new(void)
{
    return calloc(1, sizeof(struct file_store));
}

static void drop(struct file *file)
{
    free(file->data);
    memset(file, 0, sizeof(*file));
}

void files_reset(struct file_store *store)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        drop(&store->files[i]);
}

void files_free(struct file_store *store)
{
    if (store == NULL)
        return;
    files_reset(store);
    free(store);
}

size_t files_held(const struct file_store *store)
{
    size_t held = 0;

    for (size_t i = 0; i < FILES_MAX; i++)
        held += store->files[i].id[0] != '\0';
    return held;
}

static const struct file *find(const struct file_store *store, const struct sim_client *owner,
                               const char *id, size_t len)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        const struct file *file = &store->files[i];

        if (file->owner == owner && len == UUID_BYTES - 1 && memcmp(file->id, id, len) == 0)
            return file;
    }
    return NULL;
}

static struct file *find_free(struct file_store *store)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        if (store->files[i].id[0] == '\0')
            return &store->files[i];
    return NULL;
}

/* --- multipart/form-data (RFC 7578) --- */

static bool read_boundary(struct span type, char out[BOUNDARY_BYTES])
{
    static const char prefix[] = "multipart/form-data; boundary=";
    size_t len = type.len - (sizeof(prefix) - 1);

    if (type.len <= sizeof(prefix) - 1 || memcmp(type.data, prefix, sizeof(prefix) - 1) != 0 ||
        len > BOUNDARY_BYTES - 4)
        return false;
    snprintf(out, BOUNDARY_BYTES, "--%.*s", (int)len, type.data + sizeof(prefix) - 1);
    return true;
}

/* name="..." of a header line. */
static void read_quoted(const char *line, size_t len, const char *name, char out[NAME_BYTES])
{
    char mark[32];
    int n = snprintf(mark, sizeof(mark), "; %s=\"", name);
    const char *at = memmem(line, len, mark, (size_t)n);
    const char *end;

    out[0] = '\0';
    if (at == NULL)
        return;
    at += n;
    end = memchr(at, '"', len - (size_t)(at - line));
    if (end != NULL && end - at < NAME_BYTES)
        snprintf(out, NAME_BYTES, "%.*s", (int)(end - at), at);
}

static void read_head(const char *head, size_t len, struct part *part)
{
    static const char disposition[] = "Content-Disposition: form-data", type[] = "Content-Type: ";

    while (len > 0) {
        const char *end = memmem(head, len, "\r\n", 2);
        size_t n = end == NULL ? len : (size_t)(end - head);

        if (n >= sizeof(disposition) - 1 &&
            memcmp(head, disposition, sizeof(disposition) - 1) == 0) {
            read_quoted(head, n, "name", part->name);
            read_quoted(head, n, "filename", part->filename);
        } else if (n > sizeof(type) - 1 && memcmp(head, type, sizeof(type) - 1) == 0) {
            snprintf(part->type, sizeof(part->type), "%.*s", (int)(n - (sizeof(type) - 1)),
                     head + sizeof(type) - 1);
        }
        n = end == NULL ? len : n + 2;
        head += n;
        len -= n;
    }
}

/* The next part behind *at; false at the end, *is_bad when it is no end. */
static bool next_part(const char **at, const char *end, const char *boundary, struct part *part,
                      bool *is_bad)
{
    size_t n = strlen(boundary);
    char next[BOUNDARY_BYTES + 2];
    const char *head, *data, *stop;

    *is_bad = (size_t)(end - *at) < n + 4 || memcmp(*at, boundary, n) != 0;
    if (*is_bad || memcmp(*at + n, "--\r\n", 4) == 0)
        return false;
    head = *at + n + 2;
    data = memmem(head, (size_t)(end - head), "\r\n\r\n", 4);
    snprintf(next, sizeof(next), "\r\n%s", boundary);
    stop = data == NULL ? NULL : memmem(data + 4, (size_t)(end - data - 4), next, strlen(next));
    if (stop == NULL || memcmp(*at + n, "\r\n", 2) != 0) {
        *is_bad = true;
        return false;
    }
    *part = (struct part){.data = data + 4, .len = (size_t)(stop - data - 4)};
    read_head(head, (size_t)(data - head), part);
    *at = stop + 2;
    return true;
}

/* Both parts there are, and nothing else. */
static bool read_upload(const struct http_request *request, struct part *file)
{
    char boundary[BOUNDARY_BYTES];
    const char *at = request->body.data;
    bool has_file = false, has_purpose = false, is_bad = true;
    struct part part;

    if (request->content_type.data == NULL || !read_boundary(request->content_type, boundary))
        return false;
    while (next_part(&at, request->body.data + request->body.len, boundary, &part, &is_bad)) {
        if (strcmp(part.name, "file") == 0 && !has_file) {
            *file = part;
            has_file = part.filename[0] != '\0' && part.type[0] != '\0' && part.len > 0;
        } else if (strcmp(part.name, "purpose") == 0 && !has_purpose) {
            has_purpose =
                part.len == strlen("general") && memcmp(part.data, "general", part.len) == 0;
        } else {
            return false;
        }
    }
    return !is_bad && has_file && has_purpose;
}

/* --- answers --- */

static void put_file(struct buf *out, const struct file *file)
{
    buf_byte(out, '{');
    json_put_field_text(out, "id", file->id);
    json_put_field_text(out, "object", "file");
    json_put_field_u64(out, "bytes", file->len);
    json_put_field_i64(out, "created_at", file->created_at_s);
    json_put_field_text(out, "filename", file->name);
    json_put_field_text(out, "purpose", "general");
    json_put_field_text(out, "access_policy", "private");
    json_put_key(out, "modalities");
    buf_byte(out, '[');
    json_put_text(out, modality_names[file->modality]);
    buf_str(out, "]}");
}

static void reply_body(struct conn *conn, const struct buf *body)
{
    http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
}

/* NULL after an answer. Files count against the client's limit like answers do. */
static struct sim_client *admit(struct conn *conn)
{
    struct caller caller = {.has_user_agent = conn->request.user_agent.len > 0};
    struct verdict verdict;

    conn->dialect->identify(conn, &caller);
    if (!rules_admit(&conn->sim->config, &caller, &verdict)) {
        http_reply_verdict(conn, &verdict);
        return NULL;
    }
    if (caller.client->max_concurrent > 0 &&
        caller.client->in_flight >= caller.client->max_concurrent) {
        http_reply_error(conn, 429, conn->dialect->overrun_text);
        return NULL;
    }
    return caller.client;
}

static void store_upload(struct conn *conn, const struct sim_client *owner, const struct part *part,
                         enum modality modality)
{
    struct file *file = find_free(conn->sim->files);
    struct buf *body = sim_scratch(&conn->sim->body);
    char *data = malloc(part->len);

    if (file == NULL || data == NULL) {
        free(data);
        http_reply_error(conn, 500, http_reason(500));
        return;
    }
    memcpy(data, part->data, part->len);
    *file = (struct file){.modality = modality,
                          .owner = owner,
                          .created_at_s = sim_created_at_s(conn->sim),
                          .data = data,
                          .len = part->len};
    random_uuid(&conn->sim->random, file->id);
    memcpy(file->name, part->filename, sizeof(file->name));
    memcpy(file->type, part->type, sizeof(file->type));
    put_file(body, file);
    reply_body(conn, body);
}

static void upload(struct conn *conn, const struct sim_client *owner)
{
    struct part part = {0};

    if (!read_upload(&conn->request, &part)) {
        http_reply_error(conn, 400, "Your request contains an invalid form.");
        return;
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].type, part.type) != 0)
            continue;
        if (part.len > modality_bytes[types[i].modality])
            http_reply_error(conn, 413, "Payload too large");
        else
            store_upload(conn, owner, &part, types[i].modality);
        return;
    }
    http_reply_error(conn, 400, "Unsupported file type");
}

static void list(struct conn *conn, const struct sim_client *owner)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    bool any = false;

    buf_str(body, "{\"data\":[");
    for (size_t i = 0; i < FILES_MAX; i++) {
        const struct file *file = &conn->sim->files->files[i];

        if (file->id[0] == '\0' || file->owner != owner)
            continue;
        buf_str(body, any ? "," : "");
        put_file(body, file);
        any = true;
    }
    buf_str(body, "]}");
    reply_body(conn, body);
}

void files_answer(struct conn *conn)
{
    bool is_upload = span_equals(conn->request.method, "POST");
    const struct sim_client *owner;

    if (!is_upload && !span_equals(conn->request.method, "GET")) {
        http_reply_error(conn, 405, http_reason(405));
        return;
    }
    owner = admit(conn);
    if (owner == NULL)
        return;
    if (is_upload)
        upload(conn, owner);
    else
        list(conn, owner);
}

static bool rest_is(const char *rest, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(rest, text, len) == 0;
}

static void delete_file(struct conn *conn, const struct file *file)
{
    struct buf *body = sim_scratch(&conn->sim->body);

    buf_byte(body, '{');
    json_put_field_text(body, "id", file->id);
    json_put_field_bool(body, "deleted", true);
    json_put_field_text(body, "access_policy", "private");
    buf_byte(body, '}');
    drop(&conn->sim->files->files[file - conn->sim->files->files]);
    reply_body(conn, body);
}

void files_answer_one(struct conn *conn)
{
    bool is_get = span_equals(conn->request.method, "GET");
    const char *id = conn->request.path.data + sizeof(PREFIX) - 1;
    size_t len = conn->request.path.len - (sizeof(PREFIX) - 1);
    size_t id_len = len < UUID_BYTES - 1 ? len : UUID_BYTES - 1;
    const struct sim_client *owner = admit(conn);
    const struct file *file;

    if (owner == NULL)
        return;
    file = find(conn->sim->files, owner, id, id_len);
    if (file == NULL) {
        http_reply_error(conn, 404, "No such file");
    } else if (is_get && len == id_len) {
        struct buf *body = sim_scratch(&conn->sim->body);

        put_file(body, file);
        reply_body(conn, body);
    } else if (is_get && rest_is(id + id_len, len - id_len, "/content")) {
        http_reply(conn, 200, "application/octet-stream", "", file->data, file->len);
    } else if (span_equals(conn->request.method, "POST") &&
               rest_is(id + id_len, len - id_len, "/delete")) {
        delete_file(conn, file);
    } else {
        http_reply_html(conn, 403, "");
    }
}

/* --- attachments --- */

bool files_check_attachments(const struct file_store *store, const struct sim_client *client,
                             const cJSON *messages, struct verdict *verdict)
{
    size_t session_images = 0;
    const cJSON *message, *item;

    cJSON_ArrayForEach(message, messages)
    {
        size_t images = 0;

        if (json_get(message, "attachments") != NULL && role_of(message) != ROLE_USER)
            return verdict_refuse(verdict, 422, "Invalid params: attachments are a user's");
        cJSON_ArrayForEach(item, json_get(message, "attachments"))
        {
            const struct file *file =
                find(store, client, item->valuestring, strlen(item->valuestring));

            if (file == NULL)
                return verdict_refuse(verdict, 404, "No such file");
            images += file->modality == MODALITY_IMAGE;
        }
        session_images += images;
        if (images > 1 || session_images > SESSION_IMAGES_MAX)
            return verdict_refuse(verdict, 422, "Invalid params: too many images");
    }
    return true;
}
