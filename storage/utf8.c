/* One pass, eight bytes at a time where they are ASCII. Pure; any thread. */
#include "storage/utf8.h"

/* Length of the character at `at`, 0 when there is none: truncated, overlong, a surrogate, beyond
 * U+10FFFF, or NUL. The ranges are the table of RFC 3629, section 4. */
static size_t utf8_char(const uint8_t *at, size_t left) {
    const uint8_t lead = at[0];
    if (lead < 0x80) return lead != 0;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    const size_t len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (left < len) return 0;
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < low || at[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((at[i] & 0xC0) != 0x80) return 0;
    return len;
}

size_t utf8_prefix(bytes text) {
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    size_t at = 0;
    while (at < text.len) {
        uint64_t word;
        while (text.len - at >= sizeof word) { /* eight bytes of 1 to 127 */
            memcpy(&word, text.data + at, sizeof word);
            if (((word - ones) | word) & tops) break;
            at += sizeof word;
        }
        if (at == text.len) break;
        size_t len = utf8_char(text.data + at, text.len - at);
        if (len == 0) break;
        at += len;
    }
    return at;
}
