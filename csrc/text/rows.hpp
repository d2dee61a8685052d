// Rows of numbers as text, "word 0.1 0.2 ...", and as bytes, in word2vec's binary format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace firth {

// Whether a line is good, or else what is wrong with it.
enum class LineStatus : std::uint8_t { good, fields, number, word };

struct Span {
    std::int64_t begin;
    std::int64_t end;
};

// Where the first `limit` lines of text end (all lines if limit < 0), without blank lines at the end.
std::int64_t lines_end(std::string_view text, std::int64_t limit);

// The first line of each thread's share of the text: threads + 1 numbers, of which the last is the number of lines.
// cuts: set to where the shares begin, in bytes. A share begins with a line.
std::vector<std::int64_t> share_lines(std::string_view text, int threads, std::vector<std::int64_t>& cuts);

// Parses lines of a word and `columns` numbers, separated by blanks or tabs. The numbers are the last fields. The word
// is all text before them and may contain blanks. matrix: (lines, columns); words: (lines) where the word is in the
// text, or for a bad line the whole line; status: (lines).
void parse_lines(std::string_view text, const std::vector<std::int64_t>& lines, const std::vector<std::int64_t>& cuts,
                 std::int64_t columns, float* matrix, Span* words, LineStatus* status);

// Copies entries of word2vec's binary format, "word", a blank, `columns` floats, perhaps a newline, from data.
// matrix: (n, columns); words: (n). Returns how many entries were complete. If that is fewer than n, the file ends
// within the next entry, and `words` also has its word or the start of it.
std::int64_t parse_entries(std::string_view data, std::int64_t n, std::int64_t columns, float* matrix, Span* words);

// Lines of words and numbers, each number in the fewest digits that read back as the same float. words: concatenated
// UTF-8 bytes; offsets: (rows + 1) where each word begins; matrix: (rows, stride). Returns one string for each thread.
std::vector<std::string> format_lines(std::string_view words, const std::int64_t* offsets, const float* matrix,
                                      std::int64_t rows, std::int64_t columns, std::int64_t stride, int threads);

}  // namespace firth
