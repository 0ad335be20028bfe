#include "common/config_files.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* NULL with the reason in why. Never waits: a FIFO is no certificate. */
static BIO *open_pem(const char *path, char why[FILES_WHY_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    FILE *file;
    BIO *bio;

    if (fd == -1 || fstat(fd, &st) == -1) {
        snprintf(why, FILES_WHY_BYTES, "the file cannot be read: %s", strerror(errno));
        if (fd != -1)
            close(fd);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        snprintf(why, FILES_WHY_BYTES, "this is no file");
        close(fd);
        return NULL;
    }
    file = fdopen(fd, "r");
    if (file == NULL) {
        snprintf(why, FILES_WHY_BYTES, "the file cannot be read: %s", strerror(errno));
        close(fd);
        return NULL;
    }
    bio = BIO_new_fp(file, BIO_CLOSE);
    if (bio == NULL) {
        snprintf(why, FILES_WHY_BYTES, "out of memory");
        fclose(file);
    }
    return bio;
}

/* Without it OpenSSL would ask for the password on the terminal. */
static int give_no_password(char *buffer, int size, int for_writing, void *arg)
{
    return -1;
}

/* Whether the last reading stopped at the file's end and not at something broken. */
static int is_at_end(void)
{
    unsigned long code = ERR_peek_last_error();

    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

int files_check_certificates(const char *path, char why[FILES_WHY_BYTES])
{
    BIO *bio = open_pem(path, why);
    size_t count = 0;
    X509 *cert;
    int rc = 0;

    if (bio == NULL)
        return -EINVAL;
    ERR_clear_error();
    while ((cert = PEM_read_bio_X509(bio, NULL, give_no_password, NULL)) != NULL) {
        X509_free(cert);
        count++;
    }
    if (!is_at_end()) {
        snprintf(why, FILES_WHY_BYTES, "certificate %zu of the file cannot be read", count + 1);
        rc = -EINVAL;
    } else if (count == 0) {
        snprintf(why, FILES_WHY_BYTES, "there is no PEM certificate in the file");
        rc = -EINVAL;
    }
    ERR_clear_error();
    BIO_free(bio);
    return rc;
}

static X509 *read_first_certificate(const char *path, char why[FILES_WHY_BYTES])
{
    BIO *bio = open_pem(path, why);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, give_no_password, NULL) : NULL;

    if (bio != NULL && cert == NULL)
        snprintf(why, FILES_WHY_BYTES, "the certificate cannot be read");
    BIO_free(bio);
    return cert;
}

static EVP_PKEY *read_key(const char *path, char why[FILES_WHY_BYTES])
{
    BIO *bio = open_pem(path, why);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, give_no_password, NULL) : NULL;

    if (bio != NULL && key == NULL)
        snprintf(why, FILES_WHY_BYTES,
                 "there is no PEM private key that can be read without a password");
    BIO_free(bio);
    return key;
}

int files_check_key(const char *key_path, const char *cert_path, char why[FILES_WHY_BYTES])
{
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    int rc = -EINVAL;

    ERR_clear_error();
    key = read_key(key_path, why);
    if (key == NULL)
        goto out;
    cert = read_first_certificate(cert_path, why);
    if (cert == NULL)
        goto out;
    if (X509_check_private_key(cert, key) != 1)
        snprintf(why, FILES_WHY_BYTES,
                 "the key does not belong to the first certificate in "
                 "listen.tls.cert");
    else
        rc = 0;
out:
    X509_free(cert);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return rc;
}
