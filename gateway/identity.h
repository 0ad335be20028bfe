/* identity.h - what an installation keeps between starts: its directories, the secret under which
 * API keys are hashed, and the number of this node in request ids. */
#ifndef XROUTER_GATEWAY_IDENTITY_H
#define XROUTER_GATEWAY_IDENTITY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "usage/keytable.h"

/* Makes the directory and those above it when absent. 0 or -errno. */
int identity_make_dir(const char *path, mode_t mode);

/* dir/key.secret: KEY_PEPPER_BYTES random bytes, 0600, made (whole or not at all) when absent.
 * -EINVAL: damaged or readable by others; why (appended to) says what to do about it. 0 or -errno.
 */
int identity_load_pepper(const char *dir, uint8_t pepper[KEY_PEPPER_BYTES], struct buf *why);
/* dir/node: 8 hex digits, made when absent. 0, -EINVAL (damaged) or -errno. */
int identity_load_node(const char *dir, uint32_t *node, struct buf *why);

#endif
