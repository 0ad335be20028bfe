#include "tests/sim/tls.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

SSL_CTX *tls_context_new(const char *cert_path, const char *key_path)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (context == NULL)
        return NULL;
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_use_certificate_chain_file(context, cert_path) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key_path, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

SSL *tls_session_new(SSL_CTX *context, int fd)
{
    SSL *ssl = SSL_new(context);

    if (ssl == NULL)
        return NULL;
    if (SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return ssl;
}

static ssize_t result(SSL *ssl, int n)
{
    switch (SSL_get_error(ssl, n)) {
    case SSL_ERROR_NONE:
        return n;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default: /* not an enum: OpenSSL may add errors */
        return -ECONNRESET;
    }
}

ssize_t tls_recv(SSL *ssl, void *data, size_t len)
{
    ERR_clear_error();
    return result(ssl, SSL_read(ssl, data, len > INT_MAX ? INT_MAX : (int)len));
}

ssize_t tls_send(SSL *ssl, const void *data, size_t len)
{
    ERR_clear_error();
    return result(ssl, SSL_write(ssl, data, len > INT_MAX ? INT_MAX : (int)len));
}
