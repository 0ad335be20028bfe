/* tls.h - optional TLS on the simulator's connections, to test CA bundles. */
#ifndef XROUTER_SIM_TLS_H
#define XROUTER_SIM_TLS_H

#include <openssl/types.h>
#include <stddef.h>
#include <sys/types.h>

/* A server context from PEM files; NULL on failure, OpenSSL's queue says why. */
SSL_CTX *tls_context_new(const char *cert_path, const char *key_path);
/* A server session on fd; NULL on failure. The handshake happens inside the first reads. */
SSL *tls_session_new(SSL_CTX *context, int fd);

/* Like recv() and send() on a non-blocking socket: bytes, 0 = end, -EAGAIN, -ECONNRESET. */
ssize_t tls_recv(SSL *ssl, void *data, size_t len);
ssize_t tls_send(SSL *ssl, const void *data, size_t len);

#endif
