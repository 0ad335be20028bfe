/* config_files.h - the PEM files a config names, checked before anybody relies on them. Private to
 * the config files. */
#ifndef XROUTER_COMMON_CONFIG_FILES_H
#define XROUTER_COMMON_CONFIG_FILES_H

#define FILES_WHY_BYTES 160

/* Whether the file holds certificates, all of them readable. 0 or -EINVAL with the reason. */
int files_check_certificates(const char *path, char why[FILES_WHY_BYTES]);
/* Whether the file holds a private key without password that belongs to the first certificate of
 * the chain in cert_path, which has been checked. 0 or -EINVAL with the reason. */
int files_check_key(const char *key_path, const char *cert_path, char why[FILES_WHY_BYTES]);

#endif
