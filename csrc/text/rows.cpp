#include "text/rows.hpp"

#include <locale.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/threads.hpp"

namespace firth {
namespace {

// While an object of this type exists, strtod and snprintf on this thread use a decimal point in any locale.
class PointForDecimals {
  public:
    PointForDecimals() : before_(uselocale(plain())) {}
    ~PointForDecimals() { uselocale(before_); }
    PointForDecimals(const PointForDecimals&) = delete;
    PointForDecimals& operator=(const PointForDecimals&) = delete;

  private:
    static locale_t plain() {
        static const locale_t locale = newlocale(LC_ALL_MASK, "C", nullptr);
        return locale;
    }
    locale_t before_;
};

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

const char* find_newline(const char* begin, const char* end) {
    const void* found = begin < end ? std::memchr(begin, '\n', static_cast<std::size_t>(end - begin)) : nullptr;
    return found ? static_cast<const char*>(found) : end;
}

// The slow path: strtod, with PointForDecimals, on a copy that ends in 0. Numbers beyond the range of floats become 0
// or infinity.
bool parse_rounding(const char* begin, const char* end, float* out) {
    const std::string copy(begin, end);
    // strtod would also accept hexadecimal numbers.
    if (copy.find_first_of("xX") != std::string::npos) return false;
    char* stop = nullptr;
    *out = static_cast<float>(std::strtod(copy.c_str(), &stop));
    return stop == copy.c_str() + copy.size();
}

// All of [begin, end) as a number, or "nan" or "inf".
bool parse_number(const char* begin, const char* end, float* out) {
    if (begin < end && *begin == '+') {  // which from_chars does not accept
        ++begin;
        if (begin < end && *begin == '-') return false;
    }
    if (begin == end) return false;
#ifdef __cpp_lib_to_chars
    const auto [stop, error] = std::from_chars(begin, end, *out);
    if (error == std::errc::result_out_of_range) return stop == end && parse_rounding(begin, end, out);
    return error == std::errc() && stop == end;
#else
    return parse_rounding(begin, end, out);
#endif
}

// Whether a word's last field looks like one more coordinate. Then the line has too many numbers; otherwise it would be
// read as a word with a blank in it.
bool ends_in_coordinate(const char* begin, const char* end) {
    const char* field = end;
    while (field > begin && !is_blank(field[-1])) --field;
    float ignored;
    return field > begin && std::memchr(field, '.', static_cast<std::size_t>(end - field)) &&
           parse_number(field, end, &ignored);
}

LineStatus parse_line(const char* begin, const char* end, std::int64_t columns, float* row, const char** word_begin,
                      const char** word_end) {
    while (begin < end && is_blank(*begin)) ++begin;
    while (begin < end && is_blank(end[-1])) --end;
    // From the right, so that the word may contain blanks.
    for (std::int64_t column = columns; column-- > 0;) {
        const char* field = end;
        while (field > begin && !is_blank(field[-1])) --field;
        if (field == end) return LineStatus::fields;
        if (!parse_number(field, end, row + column)) {
            // With too few numbers, the word is read as one: then the number of fields is wrong.
            return field == begin ? LineStatus::fields : LineStatus::number;
        }
        end = field;
        while (begin < end && is_blank(end[-1])) --end;
    }
    if (begin == end) return LineStatus::word;
    if (ends_in_coordinate(begin, end)) return LineStatus::fields;
    *word_begin = begin;
    *word_end = end;
    return LineStatus::good;
}

}  // namespace

std::int64_t lines_end(std::string_view text, std::int64_t limit) {
    const char* const begin = text.data();
    const char* end = begin + text.size();
    if (limit >= 0) {
        const char* line = begin;
        for (std::int64_t i = 0; i < limit && line < end; ++i) {
            if (i % 1024 == 0) check_interrupt();
            line = std::min(find_newline(line, end) + 1, end);
        }
        end = line;
    }
    while (begin < end && (is_blank(end[-1]) || end[-1] == '\n')) --end;
    return end - begin;
}

std::vector<std::int64_t> share_lines(std::string_view text, int threads, std::vector<std::int64_t>& cuts) {
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const auto size = static_cast<std::int64_t>(text.size());
    cuts.assign(static_cast<std::size_t>(threads) + 1, size);
    cuts[0] = 0;
    for (int thread = 1; thread < threads; ++thread) {
        const char* const newline = find_newline(begin + size * thread / threads, end);
        cuts[static_cast<std::size_t>(thread)] = newline < end ? newline + 1 - begin : size;
    }
    std::vector<std::int64_t> lines(static_cast<std::size_t>(threads) + 1, 0);
    parallel(threads, [&](int thread) {
        const auto i = static_cast<std::size_t>(thread);
        std::int64_t count = 0;
        const char* const stop = begin + cuts[i + 1];
        for (const char* line = begin + cuts[i]; line < stop; line = find_newline(line, stop) + 1) {
            if (++count % 1024 == 0) check_interrupt();
        }
        lines[i + 1] = count;
    });
    for (std::size_t i = 1; i < lines.size(); ++i) lines[i] += lines[i - 1];
    return lines;
}

void parse_lines(std::string_view text, const std::vector<std::int64_t>& lines, const std::vector<std::int64_t>& cuts,
                 std::int64_t columns, float* matrix, Span* words, LineStatus* status) {
    const char* const start = text.data();
    parallel(static_cast<int>(lines.size()) - 1, [&](int thread) {
        const PointForDecimals point;
        const auto i = static_cast<std::size_t>(thread);
        std::int64_t n = lines[i];
        const char* const stop = start + cuts[i + 1];
        for (const char* line = start + cuts[i]; line < stop; ++n) {
            if (n % 64 == 0) check_interrupt();
            const char* const end = find_newline(line, stop);
            const char *word_begin = line, *word_end = end;
            status[n] = parse_line(line, end, columns, matrix + n * columns, &word_begin, &word_end);
            words[n] = {word_begin - start, word_end - start};
            line = end + 1;
        }
    });
}

std::int64_t parse_entries(std::string_view data, std::int64_t n, std::int64_t columns, float* matrix, Span* words) {
    const char* const start = data.data();
    const char* const end = start + data.size();
    const char* at = start;
    for (std::int64_t i = 0; i < n; ++i) {
        if (i % 1024 == 0) check_interrupt();
        while (at < end && *at == '\n') ++at;
        const void* found = at < end ? std::memchr(at, ' ', static_cast<std::size_t>(end - at)) : nullptr;
        const char* const blank = found ? static_cast<const char*>(found) : end;
        words[i] = {at - start, blank - start};
        // Compared in floats, without overflow: columns may be any number that a header claims.
        if (!found || (end - blank - 1) / 4 < columns) return i;
        std::memcpy(matrix + i * columns, blank + 1, static_cast<std::size_t>(columns) * 4);
        at = blank + 1 + columns * 4;
    }
    return n;
}

std::vector<std::string> format_lines(std::string_view words, const std::int64_t* offsets, const float* matrix,
                                      std::int64_t rows, std::int64_t columns, std::int64_t stride, int threads) {
    std::vector<std::string> pieces(static_cast<std::size_t>(threads));
    parallel_shares(rows, threads, [&](long long begin, long long end, int thread) {
        const PointForDecimals point;
        std::string text;
        char number[32];  // "-1.17549435e-38" needs 15
        for (long long row = begin; row < end; ++row) {
            if (row % 64 == 0) check_interrupt();
            text += words.substr(static_cast<std::size_t>(offsets[row]),
                                 static_cast<std::size_t>(offsets[row + 1] - offsets[row]));
            for (std::int64_t column = 0; column < columns; ++column) {
                const float value = matrix[row * stride + column];
#ifdef __cpp_lib_to_chars
                const char* const stop = std::to_chars(number, number + sizeof number, value).ptr;
#else
                const char* const stop =
                    number + std::snprintf(number, sizeof number, "%.9g", static_cast<double>(value));
#endif
                text += ' ';
                text.append(number, static_cast<std::size_t>(stop - number));
            }
            text += '\n';
        }
        pieces[static_cast<std::size_t>(thread)] = std::move(text);
    });
    return pieces;
}

}  // namespace firth
