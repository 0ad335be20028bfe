/* The exchange with a provider over TLS: certificates, kept-alive connections, and bytes that only
 * the TLS library knows of. The certificates are made at run time. */
#include "tests/unit/upstream_peer.h"

#include <signal.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct authority {
    EVP_PKEY *key;
    X509 *cert;
    char path[32]; /* the certificate as a file */
};

/* A certificate of ca's for us, and its key, as files. */
struct client {
    char cert[40], key[40];
};

struct tls_fixture {
    struct authority ca, other_ca;
    struct client client;
    EVP_PKEY *key;
    SSL_CTX *server; /* with a certificate of ca's for 127.0.0.1 and provider.test */
};

static struct tls_fixture tls;

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *text)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static X509 *make_cert(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
                       const char *names)
{
    X509 *cert = X509_new();
    X509_NAME *subject;

    assert_non_null(cert);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), issuer == NULL ? 1 : 2);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, issuer == NULL ? subject : X509_get_subject_name(issuer));
    if (issuer == NULL)
        add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
    else
        add_extension(cert, issuer, NID_subject_alt_name, names);
    assert_true(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    return cert;
}

static void make_authority(struct authority *a, const char *name)
{
    FILE *file;
    int fd;

    a->key = EVP_EC_gen("P-256");
    assert_non_null(a->key);
    a->cert = make_cert(name, a->key, NULL, a->key, NULL);
    strcpy(a->path, "/tmp/xrouter-test-ca-XXXXXX");
    fd = mkstemp(a->path);
    assert_true(fd != -1);
    file = fdopen(fd, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, a->cert), 1);
    assert_int_equal(fclose(file), 0);
}

static void free_authority(struct authority *a)
{
    unlink(a->path);
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
}

static FILE *make_file(char *path, size_t size)
{
    FILE *file;
    int fd;

    snprintf(path, size, "/tmp/xrouter-test-client-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd != -1);
    file = fdopen(fd, "w");
    assert_non_null(file);
    return file;
}

static void make_client(struct client *client)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_cert("test client", key, tls.ca.cert, tls.ca.key, "DNS:client.test");
    FILE *file = make_file(client->cert, sizeof(client->cert));

    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(fclose(file), 0);
    file = make_file(client->key, sizeof(client->key));
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static int make_certificates(void **state)
{
    X509 *cert;

    make_authority(&tls.ca, "test CA");
    make_authority(&tls.other_ca, "another test CA");
    make_client(&tls.client);
    tls.key = EVP_EC_gen("P-256");
    cert = make_cert("test server", tls.key, tls.ca.cert, tls.ca.key,
                     "IP:127.0.0.1,DNS:provider.test");
    tls.server = SSL_CTX_new(TLS_server_method());
    assert_non_null(tls.server);
    assert_int_equal(SSL_CTX_use_certificate(tls.server, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls.server, tls.key), 1);
    SSL_CTX_set_mode(tls.server,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    X509_free(cert);
    return 0;
}

static int free_certificates(void **state)
{
    SSL_CTX_free(tls.server);
    EVP_PKEY_free(tls.key);
    free_authority(&tls.ca);
    free_authority(&tls.other_ca);
    unlink(tls.client.cert);
    unlink(tls.client.key);
    return 0;
}

static int setup_tls(void **state)
{
    struct fixture *f;

    setup(state);
    f = *state;
    snprintf(f->url, sizeof(f->url), "https://127.0.0.1:%u/base", f->port);
    f->target.ca_bundle_file = tls.ca.path;
    return 0;
}

static SSL *tls_session(int fd)
{
    SSL *ssl = SSL_new(tls.server);

    assert_non_null(ssl);
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    return ssl;
}

static SSL *tls_accept(struct fixture *f)
{
    SSL *ssl = tls_session(server_accept(f));

    TURN_UNTIL(f, SSL_accept(ssl) == 1);
    return ssl;
}

static void tls_close(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);

    SSL_shutdown(ssl);
    SSL_free(ssl);
    close(fd);
}

static bool tls_received_more(SSL *ssl, struct buf *in, size_t len)
{
    char bytes[16384];
    int n = SSL_read(ssl, bytes, sizeof(bytes));

    if (n > 0)
        buf_append(in, bytes, (size_t)n);
    return in->len >= len;
}

static void tls_expect(struct fixture *f, SSL *ssl, size_t len)
{
    struct buf in;

    buf_init(&in, 64 << 20);
    TURN_UNTIL(f, tls_received_more(ssl, &in, len));
    assert_int_equal(in.len, len);
    buf_clear(&in);
}

static void tls_say(SSL *ssl, const char *text)
{
    assert_int_equal(SSL_write(ssl, text, (int)strlen(text)), strlen(text));
}

static bool tls_sent_more(SSL *ssl, const char *data, size_t len, size_t *sent)
{
    int n = SSL_write(ssl, data + *sent, (int)(len - *sent));

    if (n > 0)
        *sent += (size_t)n;
    return *sent == len;
}

/* Goes on sending, whatever happens; returns what it was given. */
static bool tls_say_until(SSL *ssl, const char *data, size_t len, size_t *sent, bool done)
{
    if (*sent < len)
        (void)tls_sent_more(ssl, data, len, sent);
    return done;
}

static void given_a_trusted_certificate_when_two_requests_then_one_connection(void **state)
{
    struct fixture *f = *state;
    struct exchange x, y;
    SSL *ssl;

    exchange_init(&x, f);
    exchange_init(&y, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    start(&y);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, y.ends > 0);
    assert_ok(&y, "hello");
    assert_int_equal(value(&f->counters.upstream_connects_total), 1);
    tls_close(ssl);
}

static void given_a_session_ticket_when_idle_then_the_connection_is_kept(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;

    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_int_equal(SSL_new_session_ticket(ssl), 1);
    assert_int_equal(SSL_do_handshake(ssl), 1);
    turn(f, 5);
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    tls_close(ssl);
    TURN_UNTIL(f, value(&f->counters.upstream_connections_idle) == 0);
}

/* The handshake must fail, whatever the server makes of it. */
static void assert_handshake_refused(struct fixture *f)
{
    struct exchange x;
    SSL *ssl;

    exchange_init(&x, f);
    start(&x);
    ssl = tls_session(server_accept(f));
    TURN_UNTIL(f, (SSL_accept(ssl), x.ends > 0));
    assert_failed(&x, XR_EUPSTREAM);
    assert_int_equal(value(&f->counters.upstream_connects_total), 0);
    tls_close(ssl);
}

static void given_another_authority_when_connecting_then_refused(void **state)
{
    struct fixture *f = *state;

    f->target.ca_bundle_file = tls.other_ca.path;
    assert_handshake_refused(f);
}

static void given_the_systems_authorities_when_connecting_then_refused(void **state)
{
    struct fixture *f = *state;

    f->target.ca_bundle_file = "";
    assert_handshake_refused(f);
}

static void given_a_name_that_is_not_in_the_certificate_when_connecting_then_refused(void **state)
{
    struct fixture *f = *state;

    snprintf(f->url, sizeof(f->url), "https://another.test:%u", f->port);
    assert_int_equal(addresses_register(f->addresses, "another.test"), 0);
    publish(f, "127.0.0.1");
    assert_handshake_refused(f);
}

static void given_a_ca_file_that_is_not_there_when_connecting_then_failed(void **state)
{
    struct fixture *f = *state;

    f->target.ca_bundle_file = "/nonexistent/ca.pem";
    assert_handshake_refused(f);
}

static void given_a_name_in_the_certificate_when_connecting_then_accepted(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;

    snprintf(f->url, sizeof(f->url), "https://provider.test:%u", f->port);
    assert_int_equal(addresses_register(f->addresses, "provider.test"), 0);
    publish(f, "127.0.0.1");
    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    assert_string_equal(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name), "provider.test");
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    tls_close(ssl);
}

static void given_different_ca_files_when_used_then_connections_are_not_shared(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;

    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    f->target.ca_bundle_file = tls.other_ca.path;
    exchange_init(&x, f);
    start(&x);
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    upstream_cancel(x.u);
    tls_close(ssl);
}

/* The server knows its clients by certificates of ca's. */
static int setup_mutual(void **state)
{
    setup_tls(state);
    assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(tls.server), tls.ca.cert), 1);
    SSL_CTX_set_verify(tls.server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

static int teardown_mutual(void **state)
{
    SSL_CTX_set_verify(tls.server, SSL_VERIFY_NONE, NULL);
    return teardown(state);
}

static void given_a_client_certificate_when_asked_for_it_then_shown(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    char name[32] = "";
    X509 *peer;
    SSL *ssl;

    f->target.client_cert_file = tls.client.cert;
    f->target.client_key_file = tls.client.key;
    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    peer = SSL_get1_peer_certificate(ssl);
    assert_non_null(peer);
    X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof(name));
    assert_string_equal(name, "test client");
    X509_free(peer);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    tls_close(ssl);
}

static void given_no_client_certificate_when_asked_for_it_then_failed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;

    exchange_init(&x, f);
    start(&x);
    ssl = tls_session(server_accept(f));
    TURN_UNTIL(f, SSL_accept(ssl) == 0 || x.ends > 0 || ERR_peek_error() != 0);
    ERR_clear_error();
    tls_close(ssl);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
}

static void given_a_client_key_that_is_not_there_when_connecting_then_failed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;

    f->target.client_cert_file = tls.client.cert;
    f->target.client_key_file = "/nonexistent/key.pem";
    exchange_init(&x, f);
    start(&x);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
    assert_non_null(strstr(x.e.message, "our certificate"));
}

static void
given_different_client_certificates_when_used_then_connections_are_not_shared(void **state)
{
    const char *const pairs[][2] = {{NULL, NULL}, {tls.client.cert, ""}, {"", tls.client.key}};
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;

    f->target.client_cert_file = tls.client.cert;
    f->target.client_key_file = tls.client.key;
    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        f->target.client_cert_file = pairs[i][0];
        f->target.client_key_file = pairs[i][1];
        exchange_init(&x, f);
        start(&x);
        assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
        upstream_cancel(x.u);
    }
    tls_close(ssl);
}

static void given_a_large_answer_when_paused_and_resumed_then_whole(void **state)
{
    struct fixture *f = *state;
    size_t len = 3 << 20, sent = 0;
    char *body = malloc(len);
    struct exchange x;
    char head[100];
    SSL *ssl;

    assert_non_null(body);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 7 + i / 251);
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    exchange_init(&x, f);
    x.pause_in_body = true;
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, head);
    while (x.ends == 0) { /* paused after every piece, and resumed after some turns */
        unsigned pieces = x.pieces;

        TURN_UNTIL(f, tls_say_until(ssl, body, len, &sent, x.pieces > pieces || x.ends > 0));
        turn(f, 1);
        if (x.u != NULL)
            upstream_resume(x.u);
    }
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.body.len, len);
    assert_memory_equal(x.body.data, body, len);
    buf_clear(&x.body);
    free(body);
    tls_close(ssl);
}

static void given_a_large_request_when_sent_then_whole(void **state)
{
    struct fixture *f = *state;
    size_t len = 6 << 20;
    char *body = calloc(1, len);
    struct exchange x;
    SSL *ssl;

    assert_non_null(body);
    exchange_init(&x, f);
    start_with(&x, REQUEST, body, len);
    ssl = tls_accept(f);
    turn(f, 20);
    tls_expect(f, ssl, strlen(REQUEST) + len);
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    free(body);
    tls_close(ssl);
}

static void given_a_body_without_length_when_cut_without_notice_then_failed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;
    int fd;

    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, "HTTP/1.1 200 OK\r\n\r\nhalf of it");
    fd = SSL_get_fd(ssl);
    shutdown(fd, SHUT_WR); /* no close_notify: anybody on the way could do that */
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
    SSL_free(ssl);
    close(fd);
}

static void given_a_body_without_length_when_closed_properly_then_complete(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    SSL *ssl;

    exchange_init(&x, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, "HTTP/1.1 200 OK\r\n\r\nall of it");
    tls_close(ssl);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "all of it");
}

static void given_a_silent_handshake_when_connect_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    f->target.connect_ms = 80;
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_ETIMEOUT);
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    close(fd);
}

static void given_a_dead_kept_alive_connection_when_used_then_repeated_once(void **state)
{
    struct fixture *f = *state;
    struct exchange x, y;
    SSL *ssl;

    exchange_init(&x, f);
    exchange_init(&y, f);
    start(&x);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    tls_close(ssl);
    start(&y);
    ssl = tls_accept(f);
    tls_expect(f, ssl, strlen(REQUEST "ping"));
    tls_say(ssl, ANSWER);
    TURN_UNTIL(f, y.ends > 0);
    assert_ok(&y, "hello");
    assert_true(y.repeated);
    tls_close(ssl);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_tls, teardown)

#define MUTUAL(test) cmocka_unit_test_setup_teardown(test, setup_mutual, teardown_mutual)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_a_trusted_certificate_when_two_requests_then_one_connection),
        TEST(given_a_session_ticket_when_idle_then_the_connection_is_kept),
        TEST(given_another_authority_when_connecting_then_refused),
        TEST(given_the_systems_authorities_when_connecting_then_refused),
        TEST(given_a_name_that_is_not_in_the_certificate_when_connecting_then_refused),
        TEST(given_a_ca_file_that_is_not_there_when_connecting_then_failed),
        TEST(given_a_name_in_the_certificate_when_connecting_then_accepted),
        TEST(given_different_ca_files_when_used_then_connections_are_not_shared),
        MUTUAL(given_a_client_certificate_when_asked_for_it_then_shown),
        MUTUAL(given_no_client_certificate_when_asked_for_it_then_failed),
        MUTUAL(given_a_client_key_that_is_not_there_when_connecting_then_failed),
        MUTUAL(given_different_client_certificates_when_used_then_connections_are_not_shared),
        TEST(given_a_large_answer_when_paused_and_resumed_then_whole),
        TEST(given_a_large_request_when_sent_then_whole),
        TEST(given_a_body_without_length_when_cut_without_notice_then_failed),
        TEST(given_a_body_without_length_when_closed_properly_then_complete),
        TEST(given_a_silent_handshake_when_connect_ms_passed_then_timeout),
        TEST(given_a_dead_kept_alive_connection_when_used_then_repeated_once),
    };

    signal(SIGPIPE, SIG_IGN); /* the server's OpenSSL writes without MSG_NOSIGNAL */
    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
