/* Images, audio and documents: GigaChat takes them as uploads, by id. */
#include "providers/gigachat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"
#include "common/secret.h"
#include "providers/api_head.h"
#include "providers/data_url.h"

#define PARAM_BYTES 96
#define BOUNDARY_RANDOM 16 /* bytes: no file has it by chance */
#define BOUNDARY_BYTES (2 * BOUNDARY_RANDOM + 1)
#define MIB ((size_t)1024 * 1024)
#define IMAGES_IN_MESSAGE 1
#define IMAGES_IN_REQUEST 10
#define ID_TEXT "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"

enum kind { KIND_IMAGE, KIND_AUDIO, KIND_DOCUMENT };

/* The server's limits (GigaChat API documentation, "Files"). */
static const size_t max_mib[] = {15, 35, 40};

static const struct {
    const char *type;
    const char *extension;
    enum kind kind;
} types[] = {
    {"image/jpeg", "jpg", KIND_IMAGE},
    {"image/png", "png", KIND_IMAGE},
    {"image/tiff", "tiff", KIND_IMAGE},
    {"image/bmp", "bmp", KIND_IMAGE},
    {"audio/mp4", "mp4", KIND_AUDIO},
    {"audio/mpeg", "mp3", KIND_AUDIO},
    {"audio/mp3", "mp3", KIND_AUDIO},
    {"audio/x-m4a", "m4a", KIND_AUDIO},
    {"audio/wav", "wav", KIND_AUDIO},
    {"audio/webm", "weba", KIND_AUDIO},
    {"audio/ogg", "ogg", KIND_AUDIO},
    {"audio/opus", "opus", KIND_AUDIO},
    {"text/plain", "txt", KIND_DOCUMENT},
    {"application/msword", "doc", KIND_DOCUMENT},
    {"application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx",
     KIND_DOCUMENT},
    {"application/pdf", "pdf", KIND_DOCUMENT},
    {"application/epub+zip", "epub", KIND_DOCUMENT},
    {"application/vnd.ms-powerpoint", "ppt", KIND_DOCUMENT},
    {"application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx",
     KIND_DOCUMENT},
    {"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx", KIND_DOCUMENT},
};

/* A file inside a request. */
struct file {
    size_t type; /* in types */
    const char *base64;
    char param[PARAM_BYTES]; /* where it stands */
};

static enum kind kind_of(const struct file *file)
{
    return types[file->type].kind;
}

bool gigachat_is_file_part(const cJSON *part)
{
    const char *type = json_string(part, "type");

    return type != NULL && (strcmp(type, "image_url") == 0 || strcmp(type, "file") == 0 ||
                            strcmp(type, "input_audio") == 0);
}

static bool find_type(const char *name, struct file *file)
{
    for (file->type = 0; file->type < sizeof(types) / sizeof(types[0]); file->type++)
        if (strcmp(types[file->type].type, name) == 0)
            return true;
    return false;
}

static int read_image(const cJSON *part, struct file *file, struct error *e)
{
    const char *url = json_string(json_get(part, "image_url"), "url");
    struct data_url data;

    strncat(file->param, ".image_url.url", sizeof(file->param) - strlen(file->param) - 1);
    if (!data_url_read(url, &data))
        return error_set(e, XR_EINVALID, file->param,
                         "'%s': the model's provider takes images inside the request, as "
                         "\"data:image/...;base64,...\", and fetches none.",
                         file->param);
    file->base64 = data.base64;
    if (!find_type(data.type, file) || kind_of(file) != KIND_IMAGE)
        return error_set(e, XR_EINVALID, file->param,
                         "'%s': expected an image of type jpeg, png, tiff or bmp, found \"%s\".",
                         file->param, data.type);
    return 0;
}

static int read_document(const cJSON *part, struct file *file, struct error *e)
{
    const char *text = json_string(json_get(part, "file"), "file_data");
    struct data_url data;

    strncat(file->param, ".file.file_data", sizeof(file->param) - strlen(file->param) - 1);
    if (text == NULL)
        return error_set(e, XR_EUNSUPPORTED, file->param,
                         "'%s': the model's provider has no files of OpenAI's; send the file "
                         "itself here.",
                         file->param);
    if (!data_url_read(text, &data))
        return error_set(e, XR_EINVALID, file->param,
                         "'%s': expected \"data:application/pdf;base64,...\" or another type.",
                         file->param);
    file->base64 = data.base64;
    if (!find_type(data.type, file) || kind_of(file) != KIND_DOCUMENT)
        return error_set(e, XR_EINVALID, file->param,
                         "'%s': expected a txt, doc, docx, pdf, epub, ppt, pptx or xlsx, found "
                         "\"%s\".",
                         file->param, data.type);
    return 0;
}

static int read_audio(const cJSON *part, struct file *file, struct error *e)
{
    const cJSON *audio = json_get(part, "input_audio");
    const char *format = json_string(audio, "format");

    strncat(file->param, ".input_audio", sizeof(file->param) - strlen(file->param) - 1);
    file->base64 = json_string(audio, "data");
    if (file->base64 == NULL || format == NULL ||
        !find_type(strcmp(format, "mp3") == 0 ? "audio/mpeg" : "audio/wav", file) ||
        (strcmp(format, "mp3") != 0 && strcmp(format, "wav") != 0))
        return error_set(e, XR_EINVALID, file->param,
                         "'%s': expected 'data' in base64 and 'format' \"wav\" or \"mp3\".",
                         file->param);
    return 0;
}

static int read_part(const cJSON *part, size_t message, size_t at, struct file *file,
                     struct error *e)
{
    const char *type = json_string(part, "type");

    snprintf(file->param, sizeof(file->param), "messages[%zu].content[%zu]", message, at);
    if (strcmp(type, "image_url") == 0)
        return read_image(part, file, e);
    return strcmp(type, "file") == 0 ? read_document(part, file, e) : read_audio(part, file, e);
}

/* Walks the files of the users' messages, in order; in others' the history refuses them. Stops when
 * visit returns other than 0. */
static int walk(const struct model_request *req,
                int (*visit)(void *arg, size_t message, const cJSON *part, size_t at), void *arg)
{
    const cJSON *message, *part;
    size_t index = 0;

    cJSON_ArrayForEach(message, req->messages)
    {
        const char *role = json_string(message, "role");
        size_t at = 0;

        index++;
        if (strcmp(role, "user") != 0)
            continue;
        cJSON_ArrayForEach(part, json_get(message, "content"))
        {
            int rc = gigachat_is_file_part(part) ? visit(arg, index - 1, part, at) : 0;

            at++;
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

struct counting {
    size_t all, images, documents;
    size_t message, in_message; /* images of the last message that has one */
    struct error *e;
};

static int count_one(void *arg, size_t message, const cJSON *part, size_t at)
{
    struct counting *c = arg;
    struct file file;
    int rc = read_part(part, message, at, &file, c->e);

    if (rc < 0)
        return rc;
    c->all++;
    c->documents += kind_of(&file) == KIND_DOCUMENT;
    if (kind_of(&file) == KIND_IMAGE) {
        c->images++;
        c->in_message = c->message == message ? c->in_message + 1 : 1;
        c->message = message;
    }
    if (c->in_message > IMAGES_IN_MESSAGE)
        return error_set(c->e, XR_EUNSUPPORTED, file.param,
                         "'%s': the model's provider takes one image a message.", file.param);
    if (c->images > IMAGES_IN_REQUEST)
        return error_set(c->e, XR_EUNSUPPORTED, file.param,
                         "'%s': the model's provider takes %d images a conversation.", file.param,
                         IMAGES_IN_REQUEST);
    if (c->documents > 1)
        return error_set(c->e, XR_EUNSUPPORTED, file.param,
                         "'%s': the model's provider reads one document a request.", file.param);
    if (c->all > FILES_MAX)
        return error_set(c->e, XR_EUNSUPPORTED, file.param,
                         "'%s': the model's provider takes %d files a request.", file.param,
                         FILES_MAX);
    return 0;
}

int gigachat_count_uploads(const struct model_request *req, size_t *count, struct error *e)
{
    struct counting c = {.message = SIZE_MAX, .e = e};
    int rc = walk(req, count_one, &c);

    *count = c.all;
    return rc;
}

static int is_document(void *arg, size_t message, const cJSON *part, size_t at)
{
    return strcmp(json_string(part, "type"), "file") == 0;
}

bool gigachat_has_document(const struct model_request *req)
{
    return walk(req, is_document, NULL) != 0;
}

struct choice {
    size_t left; /* to be passed over */
    struct file file;
    struct error *e;
};

static int choose(void *arg, size_t message, const cJSON *part, size_t at)
{
    struct choice *c = arg;
    int rc;

    if (c->left-- > 0)
        return 0;
    rc = read_part(part, message, at, &c->file, c->e);
    return rc < 0 ? rc : 1;
}

/* RFC 7578. The client's name of the file stays here: it may hold anything. */
static int put_form(const struct file *file, size_t index, const char *boundary, struct buf *out,
                    struct error *e)
{
    size_t before, max = max_mib[kind_of(file)];

    buf_printf(out,
               "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file-%zu.%s\"\r\n"
               "Content-Type: %s\r\n\r\n",
               boundary, index + 1, types[file->type].extension, types[file->type].type);
    before = out->len;
    if (base64_decode(out, file->base64, strlen(file->base64)) == -EINVAL || out->len == before)
        return error_set(e, XR_EINVALID, file->param, "'%s': this is no base64.", file->param);
    if (out->len - before > max * MIB)
        return error_set(e, XR_EINVALID, file->param,
                         "'%s': the file has more than %zu MiB, the most that the model's provider "
                         "takes of this kind.",
                         file->param, max);
    return buf_printf(out,
                      "\r\n--%s\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n"
                      "general\r\n--%s--\r\n",
                      boundary, boundary);
}

static void put_common(struct buf *head, const struct provider_config *p,
                       const struct upstream_call *call)
{
    gigachat_put_authorization(head, p, call->token);
    http1_put_header(head, "Accept", "application/json");
    http1_put_header(head, "X-Request-ID", call->request_id);
}

int gigachat_encode_upload(const struct provider_config *p, const struct model_request *req,
                           size_t index, const struct upstream_call *call,
                           struct upstream_request *out, struct error *e)
{
    struct choice c = {.left = index, .e = e};
    char boundary[BOUNDARY_BYTES], type[64 + BOUNDARY_BYTES];
    uint8_t random[BOUNDARY_RANDOM];
    int rc = walk(req, choose, &c);

    if (rc != 1 || secret_random(random, sizeof(random)) < 0)
        return rc < 0 ? rc : error_set(e, XR_EINTERNAL, NULL, NULL);
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(boundary + 2 * i, 3, "%02x", random[i]);
    rc = put_form(&c.file, index, boundary, &out->body, e);
    if (rc == 0)
        rc = gigachat_head_begin(&out->head, "POST", p->base_url, "/files", e);
    if (rc < 0)
        return rc == -ENOMEM ? error_set(e, -ENOMEM, NULL, NULL) : rc;
    put_common(&out->head, p, call);
    snprintf(type, sizeof(type), "multipart/form-data; boundary=%s", boundary);
    http1_put_header(&out->head, "Content-Type", type);
    return api_head_end(out, e);
}

/* The id goes into paths and JSON: nothing but letters, digits, '-' and '_'. */
int gigachat_decode_upload(const char *body, size_t len, char id[FILE_ID_BYTES], struct error *e)
{
    cJSON *root = json_parse(body, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    const char *text = json_string(root, "id");
    size_t n = text == NULL ? 0 : strlen(text);
    int rc = 0;

    if (n == 0 || n >= FILE_ID_BYTES || strspn(text, ID_TEXT) != n)
        rc = error_set(e, XR_EUPSTREAM, NULL, "The provider took a file, but did not name it.");
    else
        memcpy(id, text, n + 1);
    cJSON_Delete(root);
    return rc;
}

int gigachat_encode_removal(const struct provider_config *p, const char *id,
                            const struct upstream_call *call, struct upstream_request *out,
                            struct error *e)
{
    char endpoint[FILE_ID_BYTES + 32];
    int rc;

    snprintf(endpoint, sizeof(endpoint), "/files/%s/delete", id);
    rc = gigachat_head_begin(&out->head, "POST", p->base_url, endpoint, e);
    if (rc < 0)
        return rc;
    put_common(&out->head, p, call);
    return api_head_end(out, e);
}
