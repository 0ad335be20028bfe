#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "tests/sim/scenario.h"

#define ENTRIES_MAX 4096
#define PATH_BYTES 64
#define ATTEMPT_SLOTS 4096

struct entry {
    struct entry *next;
    char path[PATH_BYTES];
    int64_t times; /* uses left; -1: until the next reset */
    struct plan plan;
};

struct attempt {
    uint64_t key;
    int64_t failed;
};

struct script {
    struct entry *first;
    size_t count;
    struct attempt attempts[ATTEMPT_SLOTS]; /* a newer key takes the slot of an older one */
};

struct script *script_new(void)
{
    return calloc(1, sizeof(struct script));
}

static void free_entries(struct entry *entry)
{
    while (entry != NULL) {
        struct entry *next = entry->next;

        free(entry);
        entry = next;
    }
}

void script_free(struct script *script)
{
    if (script == NULL)
        return;
    free_entries(script->first);
    free(script);
}

void script_reset(struct script *script)
{
    free_entries(script->first);
    *script = (struct script){0};
}

static int read_entry(const cJSON *object, struct entry *entry, char why[SCENARIO_WHY_BYTES])
{
    const char *path = json_string(object, "path");
    const char *text = json_string(object, "scenario");
    int rc;

    if (path == NULL)
        path = "/v1/chat/completions";
    if (!cJSON_IsObject(object) || text == NULL || strlen(path) >= PATH_BYTES) {
        snprintf(why, SCENARIO_WHY_BYTES, "an entry needs a scenario and may have path, times");
        return -EINVAL;
    }
    memcpy(entry->path, path, strlen(path) + 1);
    entry->times = 1;
    rc = json_get_i64(object, "times", &entry->times);
    if (rc == -EINVAL || entry->times == 0 || entry->times < -1) {
        snprintf(why, SCENARIO_WHY_BYTES, "times: a positive number or -1 is needed");
        return -EINVAL;
    }
    return scenario_parse(&entry->plan, text, strlen(text), why);
}

static int add_list(struct script *script, const cJSON *root, struct entry **list,
                    char why[SCENARIO_WHY_BYTES])
{
    struct entry **end = list;
    const cJSON *object = cJSON_IsArray(root) ? root->child : root;
    int count = 0;

    for (; object != NULL; object = object->next) {
        struct entry *entry = calloc(1, sizeof(*entry));
        int rc;

        if (entry == NULL)
            return -ENOMEM;
        *end = entry;
        end = &entry->next;
        if (script->count + (size_t)++count > ENTRIES_MAX) {
            snprintf(why, SCENARIO_WHY_BYTES, "the script is full");
            return -EINVAL;
        }
        rc = read_entry(object, entry, why);
        if (rc < 0)
            return rc;
    }
    return count;
}

int script_add(struct script *script, const char *text, size_t len, char why[SCENARIO_WHY_BYTES])
{
    const char *wrong = "out of memory";
    cJSON *root = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, &wrong);
    struct entry *list = NULL;
    struct entry **end = &script->first;
    int count;

    if (root == NULL) {
        snprintf(why, SCENARIO_WHY_BYTES, "not JSON: %s", wrong);
        return -EINVAL;
    }
    count = add_list(script, root, &list, why);
    cJSON_Delete(root);
    if (count < 0) {
        free_entries(list);
        return count;
    }
    while (*end != NULL)
        end = &(*end)->next;
    *end = list;
    script->count += (size_t)count;
    return count;
}

bool script_take(struct script *script, const char *path, size_t len, struct plan *plan)
{
    for (struct entry **at = &script->first; *at != NULL; at = &(*at)->next) {
        struct entry *entry = *at;

        if (strlen(entry->path) != len || memcmp(entry->path, path, len) != 0)
            continue;
        *plan = entry->plan;
        if (entry->times > 0 && --entry->times == 0) {
            *at = entry->next;
            free(entry);
            script->count--;
        }
        return true;
    }
    return false;
}

size_t script_pending(const struct script *script)
{
    return script->count;
}

bool script_attempt_fails(struct script *script, uint64_t key, int64_t count)
{
    struct attempt *attempt = &script->attempts[key % ATTEMPT_SLOTS];

    if (attempt->key != key)
        *attempt = (struct attempt){.key = key};
    if (attempt->failed < count) {
        attempt->failed++;
        return true;
    }
    attempt->failed = 0;
    return false;
}
