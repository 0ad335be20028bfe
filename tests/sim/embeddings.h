/* embeddings.h - POST /v1/embeddings and /openai/v1/embeddings: unit vectors made of the text's
 * hash, so that equal texts have equal vectors. */
#ifndef XROUTER_SIM_EMBEDDINGS_H
#define XROUTER_SIM_EMBEDDINGS_H

#include "tests/sim/http.h"

#define EMBEDDINGS_NUMBERS 8 /* in a vector, unless `dimensions` asks for others */

/* In the connection's dialect. Behind chat_open(). */
void embeddings_answer(struct conn *conn);

#endif
