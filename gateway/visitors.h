/* visitors.h - where a worker's connections come from: how many each address has open, and how many
 * wrong API keys it has sent in this minute. The table's size is fixed; if all places that an
 * address may have are taken by addresses with open connections, it is counted with others like it.
 *
 * An IPv6 address is its /64: that is what one customer has. */
#ifndef XROUTER_GATEWAY_VISITORS_H
#define XROUTER_GATEWAY_VISITORS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct visitors; /* a worker's; opaque */
struct visitor;  /* an address; opaque */

struct visitors *visitors_new(void); /* NULL when out of memory */
void visitors_free(struct visitors *v);

/* A connection from there begins; NULL: the address has most of them open already (0 = no limit).
 * Else valid until visitor_leave(). */
struct visitor *visitor_enter(struct visitors *v, const struct sockaddr_storage *address,
                              uint32_t most, int64_t now_ms);
void visitor_leave(struct visitor *visitor); /* NULL is fine */
/* It has sent a wrong key. 0, or how long until the minute ends in which it has sent more than
 * most (0 = no limit). NULL is fine. */
int64_t visitor_note_wrong_key(struct visitor *visitor, uint32_t most, int64_t now_ms);

#endif
