/* Images and documents: OpenAI has them as URLs, with the bytes inside or not. */
#include "providers/anthropic.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "providers/data_url.h"

#define PARAM_BYTES 96

static const char *const image_types[] = {"image/jpeg", "image/png", "image/gif", "image/webp"};

static bool is_image_type(const char *type)
{
    for (size_t i = 0; i < sizeof(image_types) / sizeof(image_types[0]); i++)
        if (strcmp(image_types[i], type) == 0)
            return true;
    return false;
}

static void put_base64(const char *block, const struct data_url *data, struct buf *out)
{
    buf_str(out, "{\"type\":\"");
    buf_str(out, block);
    buf_str(out, "\",\"source\":{\"type\":\"base64\",\"media_type\":");
    json_put_text(out, data->type);
    buf_str(out, ",\"data\":");
    json_put_text(out, data->base64);
    buf_byte(out, '}');
}

static int put_image(const cJSON *image, const char *part, struct buf *out, struct error *e)
{
    const char *url = json_string(image, "url");
    char param[PARAM_BYTES];
    struct data_url data;

    snprintf(param, sizeof(param), "%s.image_url.url", part);
    if (strncasecmp(url, "https://", strlen("https://")) == 0) {
        buf_str(out, "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":");
        json_put_text(out, url);
        return buf_byte(out, '}');
    }
    if (!data_url_read(url, &data))
        return error_set(e, XR_EINVALID, param,
                         "'%s': expected an https address or \"data:image/...;base64,...\".",
                         param);
    if (!is_image_type(data.type))
        return error_set(e, XR_EINVALID, param,
                         "'%s': expected an image of type jpeg, png, gif or webp, found \"%s\".",
                         param, data.type);
    put_base64("image", &data, out);
    return 0;
}

static int put_file(const cJSON *file, const char *part, struct buf *out, struct error *e)
{
    const char *text = json_string(file, "file_data");
    const char *name = json_string(file, "filename");
    char param[PARAM_BYTES];
    struct data_url data;

    snprintf(param, sizeof(param), "%s.file.file_data", part);
    if (text == NULL)
        return anthropic_unsupported(e, part, "it has no files of OpenAI's; send 'file_data'");
    if (!data_url_read(text, &data) || strcmp(data.type, "application/pdf") != 0)
        return error_set(e, XR_EINVALID, param,
                         "'%s': expected \"data:application/pdf;base64,...\".", param);
    put_base64("document", &data, out);
    if (name != NULL && name[0] != '\0')
        json_put_field_text(out, "title", name);
    return out->err;
}

int anthropic_put_media(const cJSON *part, const char *param, struct buf *out, struct error *e)
{
    const char *type = json_string(part, "type");
    const cJSON *control = json_get(part, "cache_control");
    int rc;

    if (strcmp(type, "image_url") == 0)
        rc = put_image(json_get(part, "image_url"), param, out, e);
    else if (strcmp(type, "file") == 0)
        rc = put_file(json_get(part, "file"), param, out, e);
    else
        rc = anthropic_unsupported(e, param, "it takes text, images and PDF files");
    if (rc < 0)
        return rc;
    if (cJSON_IsObject(control)) {
        json_put_key(out, "cache_control");
        json_put_tree(out, control);
    }
    return buf_byte(out, '}');
}
