/* libsrtp2 as a filter, to compare with: one command a line on stdin, one answer a line on stdout.
 *
 *   open <suite> <key and salt in hex>   -> ok            both directions, one key
 *   rtp|rtcp <packet in hex>             -> the protected packet in hex
 *   urtp|urtcp <packet in hex>           -> the plain packet in hex
 *
 * A refusal answers "error <libsrtp status>". */
#include <srtp2/srtp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PACKET 4096

static uint32_t aligned[(MAX_PACKET + SRTP_MAX_TRAILER_LEN + 64) / 4];
static char line[2 * MAX_PACKET + 64];

static int unhex(const char *text, uint8_t *out, int room)
{
    int n = 0;
    unsigned byte;
    while (n < room && sscanf(text + 2 * n, "%2x", &byte) == 1)
        out[n++] = (uint8_t)byte;
    return n;
}

static int set_suite(srtp_policy_t *policy, const char *suite)
{
    if (!strcmp(suite, "AES_CM_128_HMAC_SHA1_80")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AES_CM_128_HMAC_SHA1_32")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AES_256_CM_HMAC_SHA1_80")) {
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AES_256_CM_HMAC_SHA1_32")) {
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_32(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AEAD_AES_128_GCM")) {
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy->rtp);
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy->rtcp);
    } else if (!strcmp(suite, "AEAD_AES_256_GCM")) {
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy->rtp);
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy->rtcp);
    } else {
        return 0;
    }
    return 1;
}

static srtp_err_status_t open_session(srtp_t *session, srtp_ssrc_type_t direction, const char *suite, uint8_t *key)
{
    srtp_policy_t policy;
    memset(&policy, 0, sizeof policy);
    if (!set_suite(&policy, suite))
        return srtp_err_status_bad_param;
    policy.ssrc.type = direction;
    policy.key = key;
    policy.window_size = 128;
    return srtp_create(session, &policy);
}

int main(void)
{
    srtp_t out = NULL, in = NULL;
    uint8_t *packet = (uint8_t *)aligned;
    char verb[16], first[2 * MAX_PACKET + 1], second[256];
    if (srtp_init() != srtp_err_status_ok)
        return 1;
    while (fgets(line, sizeof line, stdin)) {
        srtp_err_status_t status;
        int len, i;
        second[0] = 0;
        if (sscanf(line, "%15s %8192s %255s", verb, first, second) < 2)
            return 2;
        if (!strcmp(verb, "open")) {
            uint8_t key[64];
            unhex(second, key, sizeof key);
            status = open_session(&out, ssrc_any_outbound, first, key);
            if (status == srtp_err_status_ok)
                status = open_session(&in, ssrc_any_inbound, first, key);
            if (status == srtp_err_status_ok)
                puts("ok");
            else
                printf("error %d\n", status);
            fflush(stdout);
            continue;
        }
        len = unhex(first, packet, MAX_PACKET);
        if (!strcmp(verb, "rtp"))
            status = srtp_protect(out, packet, &len);
        else if (!strcmp(verb, "rtcp"))
            status = srtp_protect_rtcp(out, packet, &len);
        else if (!strcmp(verb, "urtp"))
            status = srtp_unprotect(in, packet, &len);
        else if (!strcmp(verb, "urtcp"))
            status = srtp_unprotect_rtcp(in, packet, &len);
        else
            return 3;
        if (status != srtp_err_status_ok) {
            printf("error %d\n", status);
        } else {
            for (i = 0; i < len; i++)
                printf("%02x", packet[i]);
            putchar('\n');
        }
        fflush(stdout);
    }
    return 0;
}
