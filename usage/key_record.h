/* key_record.h - an API key as the database has it and `xrouterctl key` shows it. */
#ifndef XROUTER_USAGE_KEY_RECORD_H
#define XROUTER_USAGE_KEY_RECORD_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "usage/accounts.h"
#include "usage/event.h"
#include "usage/keytable.h"

#define KEY_NAME_CHARS 64
#define KEY_NAME_BYTES (4 * KEY_NAME_CHARS + 1)
#define KEY_TIER_BYTES 65
#define KEY_WHY_BYTES 320
#define KEY_LIMIT_UNSET INT64_C(-1)

/* In the order of the database's columns and of the JSON object "limits". */
enum key_limit { KEY_RPM, KEY_RPD, KEY_TPM, KEY_TPD, KEY_PARALLEL, KEY_LIMIT_COUNT };
extern const char *const KEY_LIMIT_NAMES[KEY_LIMIT_COUNT];

struct key_record {
    uint64_t id;
    char name[KEY_NAME_BYTES]; /* "" = none */
    int64_t created_at_ms;
    int64_t expires_at_ms;                /* 0 = never */
    int64_t last_used_at_ms;              /* 0 = never */
    int64_t revoked_at_ms;                /* 0 = not revoked */
    char tier[KEY_TIER_BYTES];            /* "" = none */
    int64_t limits[KEY_LIMIT_COUNT];      /* KEY_LIMIT_UNSET = the tier's, 0 = none */
    int64_t balance_nano;                 /* ACCOUNT_UNLIMITED = not prepaid */
    int64_t spending_nano[SPEND_PERIODS]; /* limits, ACCOUNT_UNLIMITED = none */
    size_t model_count;                   /* 0 = all */
    char models[KEY_MODELS_MAX][USAGE_NAME_BYTES];
};

/* A record that says nothing: no name, all models, no limits, not prepaid. */
void key_record_init(struct key_record *r);
/* Reads what a key.create request asks for: "name", "models", "tier", "expires_at", "limits" and
 * "credits", the opening balance. Models and tier must be in the config; an alias becomes its
 * model's id. 0 or -EINVAL with a sentence in why. */
int key_record_decode(const cJSON *request, const struct config *config, struct key_record *out,
                      char why[KEY_WHY_BYTES]);
/* The same members but "credits", for a record that exists: what is absent stays, what is null goes
 * back to none or to the tier's. r is changed even on failure. */
int key_record_apply(const cJSON *request, const struct config *config, struct key_record *r,
                     char why[KEY_WHY_BYTES]);
/* A decimal string of credits, not beyond ACCOUNT_MAX_NANO either way. 0, -EINVAL, -ERANGE. */
int key_credits_decode(const cJSON *item, int64_t *nano);
/* Appends the member as such a string, or null for ACCOUNT_UNLIMITED. */
void key_credits_encode(struct buf *out, const char *name, int64_t nano);
/* Whether there is a balance or a spending limit. */
bool key_record_is_limited(const struct key_record *r);
/* Whether the name may be given to a key: 1-64 printable characters, and not what could be taken
 * for an id or a key's text. 0 or -EINVAL with the reason. */
int key_name_check(const char *name, char why[KEY_WHY_BYTES]);

/* Appends the JSON object. text is the key's text for the one answer that shows it; without it
 * (NULL) the object has "state" (active, revoked, expired), "last_used_at" and "revoked_at"
 * instead. */
void key_record_encode(const struct key_record *r, const char *text, int64_t now_at_ms,
                       struct buf *out);

/* The models as a JSON array, and back (0 or -EINVAL). */
void key_models_encode(const struct key_record *r, struct buf *out);
int key_models_decode(const char *json, struct key_record *r);

/* What the workers look at, but for the account: the record with its tier's limits filled in.
 * False: the config has no such tier (any more); only the key's own limits count then. */
bool key_record_resolve(const struct key_record *r, const struct config *config, struct key *out);

#endif
