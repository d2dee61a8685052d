// UTF-8 as Python reads it: which bytes are invalid, how long an invalid part is, which characters are white space.
#pragma once

#include <cstdint>

namespace firth {

constexpr bool is_ascii_space(unsigned char c) { return (c >= 9 && c <= 13) || (c >= 28 && c <= 32); }

// The characters beyond ASCII at which str.split() splits.
constexpr bool is_wide_space(std::uint32_t c) {
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

struct Utf8Character {
    std::uint32_t code;
    int length;  // in bytes
    bool valid;  // if not, `length` bytes become one U+FFFD
};

// The character at p < end. An invalid one is the longest prefix of a well-formed sequence, or else one byte (Unicode,
// section 3.9, "maximal subparts"), as in bytes.decode("utf-8", "replace").
inline Utf8Character read_utf8(const char* p, const char* end) {
    const auto byte = [&](int i) { return static_cast<unsigned char>(p[i]); };
    const unsigned lead = byte(0);
    if (lead < 0x80) return {lead, 1, true};
    if (lead < 0xC2 || lead > 0xF4) return {0, 1, false};
    const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // The second byte excludes overlong forms, surrogates and code points beyond U+10FFFF.
    unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    std::uint32_t code = lead & (0x7Fu >> length);
    for (int i = 1; i < length; ++i) {
        if (p + i == end || byte(i) < low || byte(i) > high) return {0, i, false};
        code = code << 6 | (byte(i) & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    return {code, length, true};
}

// Writes a character, 1 to 4 bytes, and returns what follows it.
inline char* write_utf8(char* out, std::uint32_t code) {
    const auto tail = [&](int shift) { *out++ = static_cast<char>(0x80 | (code >> shift & 0x3F)); };
    if (code < 0x80) {
        *out++ = static_cast<char>(code);
    } else if (code < 0x800) {
        *out++ = static_cast<char>(0xC0 | code >> 6);
        tail(0);
    } else if (code < 0x10000) {
        *out++ = static_cast<char>(0xE0 | code >> 12);
        tail(6);
        tail(0);
    } else {
        *out++ = static_cast<char>(0xF0 | code >> 18);
        tail(12);
        tail(6);
        tail(0);
    }
    return out;
}

}  // namespace firth
