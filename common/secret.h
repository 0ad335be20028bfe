/* secret.h - values that must not be seen: read from where the config points, wiped, never printed.
 */
#ifndef XROUTER_COMMON_SECRET_H
#define XROUTER_COMMON_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES 32

/* Reads a secret by its reference: "env:NAME", "file:/path" (relative paths from base_dir),
 * "cred:name" (systemd's $CREDENTIALS_DIRECTORY/name), anything else is the secret itself. One
 * trailing newline is cut. *out is the caller's, freed with secret_free(). is_literal (NULL is
 * fine) tells whether the reference was the secret itself. Returns 0, -ENOENT (no such variable or
 * file), -EINVAL (empty), -errno; why (NULL is fine) gets a text that names the source but not the
 * value. */
int secret_read(const char *reference, const char *base_dir, char **out, bool *is_literal,
                char why[160]);
void secret_free(char *secret); /* wipes; NULL is fine */

/* len random bytes from the kernel. 0 or -errno. */
int secret_random(void *out, size_t len);
/* HMAC-SHA-256. 0 or -ENOMEM. */
int secret_hmac(const void *key, size_t key_len, const void *data, size_t len,
                uint8_t out[DIGEST_BYTES]);
int secret_sha256(const void *data, size_t len, uint8_t out[DIGEST_BYTES]);
bool secret_equal(const void *a, const void *b, size_t len); /* constant time */

/* Text forms; out is NUL-terminated and must hold them. */
size_t base64url_encode(const void *data, size_t len,
                        char *out);                       /* no padding; 4/3 len + 2 bytes */
void hex_encode(const void *data, size_t len, char *out); /* 2 len + 1 bytes */
int hex_decode(const char *text, size_t len, void *out);  /* len hex digits; 0 or -EINVAL */

#endif
