// Rows of numbers as text and as bytes: "word 0.1 0.2 ...", and what word2vec's binary files hold.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace firth {

// What a line turned out to be.
enum class LineStatus : std::uint8_t { good, fields, number, word };

struct Span {
    std::int64_t begin;
    std::int64_t end;
};

// Where the first `limit` lines of text end (any number of lines if limit < 0), blank lines at the end left out.
std::int64_t lines_end(std::string_view text, std::int64_t limit);

// The first line of each thread's share of the text: threads + 1 numbers, the last one how many lines there are.
// cuts receives where the shares begin, in bytes; a share begins with a line.
std::vector<std::int64_t> share_lines(std::string_view text, int threads, std::vector<std::int64_t>& cuts);

// Parses lines of a word and `columns` numbers, apart by blanks or tabs. The numbers are the last fields; the word is
// what stands before them and may contain blanks. matrix: (lines, columns); words: (lines) where the word stands in
// the text, or for a bad line the whole line; status: (lines).
void parse_lines(std::string_view text, const std::vector<std::int64_t>& lines, const std::vector<std::int64_t>& cuts,
                 std::int64_t columns, float* matrix, Span* words, LineStatus* status);

// Copies entries of word2vec's binary format, "word", a blank, `columns` floats, perhaps a newline, out of data.
// matrix: (n, columns); words: (n). Returns how many entries were whole; if that is fewer than n, the file ends
// within the next one, whose word, as far as it goes, is in `words` too.
std::int64_t parse_entries(std::string_view data, std::int64_t n, std::int64_t columns, float* matrix, Span* words);

// Lines of words and numbers, each number in the fewest digits that read back as the same float. words: UTF-8 bytes end
// to end; offsets: (rows + 1) where each begins; matrix: (rows, stride). One piece for each thread.
std::vector<std::string> format_lines(std::string_view words, const std::int64_t* offsets, const float* matrix,
                                      std::int64_t rows, std::int64_t columns, std::int64_t stride, int threads);

}  // namespace firth
