/* models_list.h - the models that a provider offers, as GET .../models lists them; all dialects
 * write the list as OpenAI does. */
#ifndef XROUTER_PROVIDERS_MODELS_LIST_H
#define XROUTER_PROVIDERS_MODELS_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define MODELS_LIST_BYTES 32768

struct models_list {
    uint32_t count;                /* of the names below */
    uint32_t left_out;             /* for which there was no room */
    char names[MODELS_LIST_BYTES]; /* each ends with a NUL */
};

/* 0 or XR_EUPSTREAM. Gemini's "models/" before each name is left out. */
int models_list_decode(const char *body, size_t len, struct models_list *out, struct error *e);
/* The name after that one, NULL = the first; NULL behind the last. The list may come from shared
 * memory: nothing outside it is read. */
const char *models_list_next(const struct models_list *list, const char *name);
bool models_list_has(const struct models_list *list, const char *name);

#endif
