/* control_socket.h - master.sock: orders from xrouterctl (common/frame.h), one JSON object a frame.
 *
 * Only root and our own user are served. A client that does not read or does not finish its
 * request is closed after a while; none is ever waited for. */
#ifndef XROUTER_GATEWAY_CONTROL_SOCKET_H
#define XROUTER_GATEWAY_CONTROL_SOCKET_H

#include <cjson/cJSON.h>

#include "common/buf.h"
#include "common/loop.h"

struct control_socket; /* opaque */

/* Carries one request out. Appends the result (one JSON value) to result and returns NULL, or
 * returns the error's code, a literal, with its message appended to message. */
typedef const char *(*control_request_fn)(void *arg, const cJSON *request, struct buf *result,
                                          struct buf *message);

/* Listens at path, 0660. loop is borrowed. 0 or -errno. */
int control_socket_open(struct loop *loop, const char *path, control_request_fn on_request,
                        void *arg, struct control_socket **out);
/* Closes the clients and the listener and removes the file. NULL is fine. */
void control_socket_close(struct control_socket *s);
/* In a forked process: closes the descriptors and nothing else. NULL is fine. */
void control_socket_forget(struct control_socket *s);

#endif
