#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "usage/image_tokens.h"

/* A data: URL of these bytes. */
static char *url_of(const char *type, const void *bytes, size_t len)
{
    size_t room = strlen("data:image/;base64,") + strlen(type) + 4 * (len / 3 + 1) + 1;
    char *url = malloc(room);
    int head;

    assert_non_null(url);
    head = snprintf(url, room, "data:image/%s;base64,", type);
    EVP_EncodeBlock((unsigned char *)url + head, bytes, (int)len);
    return url;
}

static void assert_size(const char *type, const void *bytes, size_t len, uint32_t width,
                        uint32_t height)
{
    char *url = url_of(type, bytes, len);
    uint32_t w = 0, h = 0;

    assert_int_equal(image_size_lookup(url, strlen(url), &w, &h), 0);
    assert_int_equal(w, width);
    assert_int_equal(h, height);
    free(url);
}

static const char png[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\0\0\0\x03\0\x08\x06\0\0\0";

static void given_png_gif_when_looked_up_then_their_sizes(void **state)
{
    assert_size("png", png, sizeof(png) - 1, 1024, 768);
    assert_size("gif", "GIF89a\x40\x01\xf0\0\0\0\0", 13, 320, 240);
}

static void given_webp_of_three_kinds_when_looked_up_then_their_sizes(void **state)
{
    static const char lossy[] =
        "RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x26\x42\x70\x41";
    static const char lossless[] = "RIFF\x24\0\0\0WEBPVP8L\x18\0\0\0\x2f\xff\xc1\x3f\x00";
    static const char extended[] = "RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x0f\0\x7f\x07\0";

    assert_size("webp", lossy, sizeof(lossy) - 1, 550, 368);
    assert_size("webp", lossless, sizeof(lossless) - 1, 512, 256);
    assert_size("webp", extended, sizeof(extended) - 1, 4096, 1920);
}

static void given_jpeg_with_segments_in_front_when_looked_up_then_its_size(void **state)
{
    char bytes[1000] = "\xff\xd8\xff\xe1\x03\x00"; /* Exif of 0x300 bytes */
    static const char frame[] = "\xff\xff\xc4\0\x02\xff\xc2\0\x11\x08\x08\x70\x0f\0\x03";

    memcpy(bytes + 4 + 0x300, frame, sizeof(frame) - 1);
    assert_size("jpeg", bytes, sizeof(bytes), 3840, 2160);
}

static void given_header_cut_anywhere_when_looked_up_then_not_found(void **state)
{
    uint32_t width, height;

    for (size_t len = 0; len < 24; len++) {
        char *url = url_of("png", png, len);

        assert_int_equal(image_size_lookup(url, strlen(url), &width, &height), -ENOENT);
        free(url);
    }
}

static void given_what_is_no_image_when_looked_up_then_not_found(void **state)
{
    static const char *const urls[] = {
        "",
        "https://example.org/a.png",
        "data:image/png;base64,",
        "data:image/png;base64,!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "data:image/png,iVBORw0KGgo=",
        "data:text/plain;base64,iVBORw0KGgo=",
        "data:image/jpeg;base64,/9j/////////////////////////////",
        "data:image/jpeg;base64,/9j/4AAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };
    uint32_t width, height;

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
        assert_int_equal(image_size_lookup(urls[i], strlen(urls[i]), &width, &height), -ENOENT);
}

static void given_endless_jpeg_when_looked_up_then_few_bytes_are_looked_at(void **state)
{
    size_t len = 3 << 20;
    char *bytes = malloc(len);
    uint32_t width, height;
    char *url;

    assert_non_null(bytes);
    memset(bytes, 0xff, len);
    bytes[1] = '\xd8';
    url = url_of("jpeg", bytes, len);
    assert_int_equal(image_size_lookup(url, strlen(url), &width, &height), -ENOENT);
    free(url);
    free(bytes);
}

static void given_documented_sizes_when_counted_then_documented_tiles(void **state)
{
    assert_int_equal(image_tiles(1024, 1024), 4); /* 85 + 4 * 170 = 765 */
    assert_int_equal(image_tiles(2048, 4096), 6); /* 1105 */
    assert_int_equal(image_tiles(512, 512), 1);
    assert_int_equal(image_tiles(513, 512), 2);
}

static void given_any_size_when_counted_then_within_the_limit(void **state)
{
    static const uint32_t sides[] = {1,    2,    511,  512,  513,   767,   768,     769,
                                     1000, 2047, 2048, 2049, 10000, 65535, 1 << 24, UINT32_MAX};
    const size_t count = sizeof(sides) / sizeof(sides[0]);

    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            assert_in_range(image_tiles(sides[i], sides[j]), 1, IMAGE_TILES_MAX);
}

static void given_image_when_counted_then_base_and_tiles(void **state)
{
    static const struct image_rules rules = {85, 170};
    char *url = url_of("png", png, sizeof(png) - 1);
    bool is_known;

    assert_int_equal(image_tokens(&rules, url, strlen(url), NULL, &is_known), 85 + 4 * 170);
    assert_true(is_known);
    assert_int_equal(image_tokens(&rules, url, strlen(url), "low", &is_known), 85);
    assert_true(is_known);
    assert_int_equal(image_tokens(&rules, "https://a", 9, "high", &is_known), 85 + 8 * 170);
    assert_false(is_known);
    free(url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_png_gif_when_looked_up_then_their_sizes),
        cmocka_unit_test(given_webp_of_three_kinds_when_looked_up_then_their_sizes),
        cmocka_unit_test(given_jpeg_with_segments_in_front_when_looked_up_then_its_size),
        cmocka_unit_test(given_header_cut_anywhere_when_looked_up_then_not_found),
        cmocka_unit_test(given_what_is_no_image_when_looked_up_then_not_found),
        cmocka_unit_test(given_endless_jpeg_when_looked_up_then_few_bytes_are_looked_at),
        cmocka_unit_test(given_documented_sizes_when_counted_then_documented_tiles),
        cmocka_unit_test(given_any_size_when_counted_then_within_the_limit),
        cmocka_unit_test(given_image_when_counted_then_base_and_tiles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
