// The binary tree of hierarchical softmax.
#pragma once

#include <cstdint>
#include <vector>

namespace firth {

struct Huffman {
    std::vector<std::int64_t> begins;  // (n + 1) where each leaf's path begins
    std::vector<std::int32_t> nodes;   // inner nodes from the leaf's parent up to the root, which is n - 2
    std::vector<std::int8_t> turns;    // at each: +1 from the heavier child, which was taken second, -1 from the other
};

// Huffman's tree (1952) over n descending counts. Of a leaf and an inner node of equal weight, the node is taken first,
// as word2vec's and fastText's programs do: their files contain the matrix of the nodes without the tree.
Huffman huffman(const std::int64_t* counts, std::int32_t n);

}  // namespace firth
