#include "runtime/huffman.hpp"

#include <cstddef>

namespace firth {

Huffman huffman(const std::int64_t* counts, std::int32_t n) {
    const auto leaves = static_cast<std::size_t>(n);
    Huffman tree;
    tree.begins.assign(1, 0);
    if (leaves == 0) return tree;
    std::vector<std::int64_t> weight(counts, counts + n);
    std::vector<std::size_t> parent(2 * leaves - 1);
    std::vector<std::int8_t> turn(2 * leaves - 1);
    // Inner nodes are created in the order of their weight, so leaves and nodes are two sorted queues.
    std::size_t leaves_left = leaves, next_node = leaves;
    const auto lightest = [&] {
        const bool leaf =
            leaves_left > 0 && (next_node == weight.size() || weight[leaves_left - 1] < weight[next_node]);
        return leaf ? --leaves_left : next_node++;
    };
    while (weight.size() < 2 * leaves - 1) {
        const std::size_t first = lightest(), second = lightest();
        parent[first] = parent[second] = weight.size();
        turn[first] = -1;
        turn[second] = 1;
        weight.push_back(weight[first] + weight[second]);
    }
    const std::size_t root = 2 * leaves - 2;
    for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
        for (std::size_t at = leaf; at != root; at = parent[at]) {
            tree.nodes.push_back(static_cast<std::int32_t>(parent[at] - leaves));
            tree.turns.push_back(turn[at]);
        }
        tree.begins.push_back(static_cast<std::int64_t>(tree.nodes.size()));
    }
    return tree;
}

}  // namespace firth
