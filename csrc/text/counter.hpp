// Text to ids in one pass. Every thread numbers the words of its share in its own table and keeps the numbers. At the
// end, the tables are merged, the words are ordered, and the numbers are replaced by final ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/word_table.hpp"

namespace firth {

struct TokenizerTable {
    // For each code point of the table: 0 if it separates words, or else the lower-cased character.
    // Empty: words are separated by white space and do not change.
    std::vector<std::uint32_t> lower;
};

// Where invalid UTF-8 first stands in a file.
struct InvalidAt {
    std::int64_t byte;
    std::int64_t line;  // lines before it
};

// Text is fed, merged, selected from and written, in this order. A call out of order throws std::logic_error.
class TextCounter {
  public:
    // Text is divided among threads in shares of at least min_share bytes.
    TextCounter(TokenizerTable tokenizer, int threads, std::int64_t min_share);

    // A file is begun, fed in blocks that may be cut anywhere, and ended. Each line is one document. `offset`: how many
    // bytes were skipped at its start.
    void begin_file(std::int64_t offset);
    void feed(const char* data, std::size_t n);
    void end_file();

    // Documents that are already split into tokens. ids (n) number the words in the order in which they were given;
    // new_words are the words that are new. Document d ends before ids[ends[d]].
    void feed_tokens(const std::vector<std::string_view>& new_words, const std::int32_t* ids, std::int64_t n,
                     const std::int64_t* ends, std::int64_t n_documents);

    std::int64_t documents() const { return documents_; }
    std::int64_t tokens() const { return tokens_; }
    std::int64_t invalid() const { return invalid_; }  // sequences that became U+FFFD
    std::optional<InvalidAt> first_invalid() const { return first_invalid_; }

    // Ends a file that is still open. Nothing can be fed after this. Returns the number of different words.
    // largest_count: that of the most frequent word.
    std::int64_t merge();
    std::int64_t largest_count() const { return largest_count_; }

    // Then one of these, once, selects the words to keep, in the order of their ids. By count: the most frequent first,
    // equally frequent ones by their bytes; `most` < 0: all. Or by a given vocabulary, in its order.
    void select(std::int64_t min_count, std::int64_t most);
    void select(const std::vector<std::string_view>& words);
    std::int64_t kept_tokens() const { return kept_tokens_; }
    const std::vector<std::string_view>& words() const { return words_; }
    const std::vector<std::int64_t>& counts() const { return counts_; }

    // Last: ids (kept_tokens), offsets (documents + 1). Memory goes back to the system as ids are written.
    void write(std::int32_t* ids, std::int64_t* offsets);

  private:
    enum class State { feeding, merged, selected, written };
    // Consecutive tokens, and where documents end among them.
    struct Segment {
        int table;
        Pages ids;
        std::int64_t tokens;
        std::vector<std::uint32_t> ends;
    };
    struct Scanned {
        Segment segment;
        std::int64_t invalid;
        std::optional<InvalidAt> first_invalid;  // relative to the scanned text
    };

    void require_feeding() const;
    void begin_selection();
    void feed_piece(const char* data, std::size_t n);
    void scan(const char* begin, const char* end, int shares, std::int64_t offset);
    Scanned scan_share(const char* begin, const char* end, const char* readable_end, int table);

    TokenizerTable tokenizer_;
    int threads_;
    std::int64_t min_share_;
    std::vector<WordTable> tables_;
    std::vector<Segment> segments_;
    std::vector<std::int64_t> token_counts_;  // by id, of what feed_tokens counted

    std::string carry_;  // the text after the last white space of all blocks so far
    std::int64_t position_ = 0, line_ = 0;
    bool line_open_ = false;
    std::int64_t documents_ = 0, tokens_ = 0, invalid_ = 0;
    std::optional<InvalidAt> first_invalid_;

    State state_ = State::feeding;
    std::vector<std::vector<std::int32_t>> merged_ids_;  // by table, except the first, whose ids the merged table keeps
    std::vector<std::int32_t> final_ids_;                // by id in the merged table; -1: not kept
    std::vector<std::string_view> words_;
    std::vector<std::int64_t> counts_;
    std::int64_t largest_count_ = 0, kept_tokens_ = 0;
};

}  // namespace firth
