/* files.h - GigaChat's files: uploaded, listed, read and deleted by the client that owns them, and
 * named in a message's attachments. All in memory. */
#ifndef XROUTER_SIM_FILES_H
#define XROUTER_SIM_FILES_H

#include "common/json.h"
#include "tests/sim/http.h"
#include "tests/sim/rules.h"

struct file_store; /* opaque */

struct file_store *files_new(void); /* NULL when out of memory */
void files_free(struct file_store *store);
void files_reset(struct file_store *store); /* forgets them all */
size_t files_held(const struct file_store *store);

/* POST and GET /v1/files. */
void files_answer(struct conn *conn);
/* GET /v1/files/{id}, GET .../content, POST .../delete. */
void files_answer_one(struct conn *conn);

/* Whether each attachment is a file of the client, and no message or session has too many images.
 * Fills verdict where not. */
bool files_check_attachments(const struct file_store *store, const struct sim_client *client,
                             const cJSON *messages, struct verdict *verdict);

#endif
