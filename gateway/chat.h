/* chat.h - POST /v1/chat/completions, /v1/completions and /v1/embeddings, from the parsed body to
 * the settled event.
 *
 * A chat is admitted (row, ring space), attempted, relayed and settled; it dies in one place, when
 * its HTTP request is completed. The order of settlement is the contract of gateway/inflight.h. A
 * completion is a chat in another shape, embeddings are one whose answer is vectors. */
#ifndef XROUTER_GATEWAY_CHAT_H
#define XROUTER_GATEWAY_CHAT_H

#include "gateway/worker.h"

/* Endpoint handlers; arg is the struct worker. */
void chat_handle(void *arg, struct http_request *request);
void chat_handle_completion(void *arg, struct http_request *request);
void chat_handle_embeddings(void *arg, struct http_request *request);
/* Ends every admitted chat with the error (a stream with an error chunk) and settles what it got.
 */
void chat_cut_all(struct worker *w, int number, const char *message);
/* Ends the chats whose row is marked to be killed. */
void chat_cut_killed(struct worker *w);

#endif
