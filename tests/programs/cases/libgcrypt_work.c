/* libgcrypt_work WITHOUT FILE: the library's self-tests, then digests and ciphers over the file, with the processor features in the
 * comma-separated list WITHOUT left unused ("none": all are used). Prints results. */
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void digest_print(const char *name, const void *data, size_t len)
{
    unsigned char out[32];

    gcry_md_hash_buffer(GCRY_MD_SHA256, out, data, len);
    printf("%s ", name);
    for (int i = 0; i < 8; i++)
        printf("%02x", out[i]);
    putchar('\n');
}

static void digest(int algorithm, const unsigned char *data, size_t len)
{
    gcry_md_hd_t h;
    unsigned char out[256];
    unsigned length = gcry_md_get_algo_dlen(algorithm);

    if (gcry_md_test_algo(algorithm) || gcry_md_open(&h, algorithm, 0))
        return;
    gcry_md_write(h, data, len / 3);
    gcry_md_write(h, data + len / 3, len - len / 3);
    if (!length) {
        length = sizeof(out);
        gcry_md_extract(h, algorithm, out, length);
    } else {
        memcpy(out, gcry_md_read(h, algorithm), length);
    }
    digest_print(gcry_md_algo_name(algorithm), out, length);
    gcry_md_close(h);
}

static void cipher(int algorithm, int mode, const char *mode_name, const unsigned char *data, size_t len)
{
    gcry_cipher_hd_t h;
    unsigned char key[64], iv[16], *out = malloc(len);
    size_t key_len = gcry_cipher_get_algo_keylen(algorithm), block = gcry_cipher_get_algo_blklen(algorithm);
    char name[80];

    memcpy(key, data, sizeof(key));
    memcpy(iv, data + 64, sizeof(iv));
    if (mode == GCRY_CIPHER_MODE_XTS)
        key_len *= 2;
    if (!gcry_cipher_test_algo(algorithm) && !gcry_cipher_open(&h, algorithm, mode, 0)) {
        if (!gcry_cipher_setkey(h, key, key_len) && !gcry_cipher_setiv(h, iv, mode == GCRY_CIPHER_MODE_GCM ? 12 : block > 1 ? block : 8) &&
            !gcry_cipher_encrypt(h, out, len, data, len)) {
            snprintf(name, sizeof(name), "%s %s", gcry_cipher_algo_name(algorithm), mode_name);
            digest_print(name, out, len);
        }
        gcry_cipher_close(h);
    }
    free(out);
}

static void ciphers(const unsigned char *data, size_t len)
{
    static const struct {
        int mode;
        const char *name;
    } modes[] = {{GCRY_CIPHER_MODE_ECB, "ECB"}, {GCRY_CIPHER_MODE_CBC, "CBC"}, {GCRY_CIPHER_MODE_CFB, "CFB"},
                 {GCRY_CIPHER_MODE_OFB, "OFB"}, {GCRY_CIPHER_MODE_CTR, "CTR"}, {GCRY_CIPHER_MODE_GCM, "GCM"},
                 {GCRY_CIPHER_MODE_XTS, "XTS"}, {GCRY_CIPHER_MODE_STREAM, "stream"}};

    for (int algorithm = 1; algorithm < 330; algorithm++)
        for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++)
            cipher(algorithm, modes[m].mode, modes[m].name, data, len);
}

int main(int argc, char **argv)
{
    static unsigned char data[1 << 19];
    FILE *f = fopen(argv[2], "rb");

    if (strcmp(argv[1], "none"))
        for (char *feature = strtok(argv[1], ","); feature; feature = strtok(NULL, ","))
            gcry_control(GCRYCTL_DISABLE_HWF, feature, NULL);
    if (!f || fread(data, 1, sizeof(data), f) != sizeof(data) || !gcry_check_version(NULL))
        return 1;
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    printf("self-test %d\n", (int)gcry_control(GCRYCTL_SELFTEST));
    for (int algorithm = 1; algorithm < 400; algorithm++)
        digest(algorithm, data, sizeof(data) - 13);
    ciphers(data, sizeof(data));
    return 0;
}
