#include "providers/data_url.h"

#include <string.h>
#include <strings.h>

bool data_url_read(const char *url, struct data_url *out)
{
    static const char scheme[] = "data:", mark[] = ";base64";
    const char *comma = strchr(url, ',');
    const char *type = url + sizeof(scheme) - 1;
    size_t len;

    if (strncasecmp(url, scheme, sizeof(scheme) - 1) != 0 || comma == NULL)
        return false;
    if (comma - type < (int)sizeof(mark) - 1 ||
        strncasecmp(comma - (sizeof(mark) - 1), mark, sizeof(mark) - 1) != 0)
        return false;
    len = strcspn(type, ";,");
    if (len >= DATA_URL_TYPE_BYTES || comma[1] == '\0')
        return false;
    for (size_t i = 0; i < len; i++)
        out->type[i] = (char)(type[i] >= 'A' && type[i] <= 'Z' ? type[i] + ('a' - 'A') : type[i]);
    out->type[len] = '\0';
    if (strcmp(out->type, "image/jpg") == 0) /* there is no such type, but many write it */
        memcpy(out->type, "image/jpeg", sizeof("image/jpeg"));
    out->base64 = comma + 1;
    return true;
}
