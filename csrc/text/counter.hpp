// Text to ids in one pass: every thread numbers the words of its share in a table of its own and keeps the numbers;
// when all text is seen, the tables are merged, the words ordered, and the numbers replaced by final ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/word_table.hpp"

namespace firth {

struct TokenizerTable {
    // By code point, up to the table's end: 0 for what separates words, else the lower-cased character.
    // Empty: words are what white space separates, and stay as they are.
    std::vector<std::uint32_t> lower;
};

// Where invalid UTF-8 first stands in a file.
struct InvalidAt {
    std::int64_t byte;
    std::int64_t line;  // lines before it
};

// Text is fed, merged, selected from and written, in this order; a call out of turn throws std::logic_error.
class TextCounter {
  public:
    // Text is shared out over threads in shares of min_share bytes or more.
    TextCounter(TokenizerTable tokenizer, int threads, std::int64_t min_share);

    // A file is begun, fed in blocks cut anywhere, and ended. Each of its lines is one document. `offset` is how many
    // of its bytes are left out at the start.
    void begin_file(std::int64_t offset);
    void feed(const char* data, std::size_t n);
    void end_file();

    // Documents that are tokens already: ids[n] number the words in the order in which they are handed over, new_words
    // are those not handed over yet; document d ends before ids[ends[d]].
    void feed_tokens(const std::vector<std::string_view>& new_words, const std::int32_t* ids, std::int64_t n,
                     const std::int64_t* ends, std::int64_t n_documents);

    std::int64_t documents() const { return documents_; }
    std::int64_t tokens() const { return tokens_; }
    std::int64_t invalid() const { return invalid_; }  // sequences that became U+FFFD
    std::optional<InvalidAt> first_invalid() const { return first_invalid_; }

    // Ends a file that is still open; nothing can be fed after this. The number of different words, and the count of
    // the most frequent one.
    std::int64_t merge();
    std::int64_t largest_count() const { return largest_count_; }

    // Then one of these, once, says which words stay, in the order of their ids. By count: the most frequent first,
    // equally frequent ones by their bytes; `most` < 0: all. By a given vocabulary: as it is.
    void select(std::int64_t min_count, std::int64_t most);
    void select(const std::vector<std::string_view>& words);
    std::int64_t kept_tokens() const { return kept_tokens_; }
    const std::vector<std::string_view>& words() const { return words_; }
    const std::vector<std::int64_t>& counts() const { return counts_; }

    // Last: ids (kept_tokens), offsets (documents + 1). What was kept is given back to the system as it is written out.
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

    std::string carry_;  // what follows the last white space of the blocks so far
    std::int64_t position_ = 0, line_ = 0;
    bool line_open_ = false;
    std::int64_t documents_ = 0, tokens_ = 0, invalid_ = 0;
    std::optional<InvalidAt> first_invalid_;

    State state_ = State::feeding;
    std::vector<std::vector<std::int32_t>> merged_ids_;  // by table but the first, whose ids the merged table keeps
    std::vector<std::int32_t> final_ids_;                // by id in the merged table; -1: not kept
    std::vector<std::string_view> words_;
    std::vector<std::int64_t> counts_;
    std::int64_t largest_count_ = 0, kept_tokens_ = 0;
};

}  // namespace firth
