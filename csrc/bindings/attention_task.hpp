// The arguments that all bindings of attention share, checked: a task for any back end.
#pragma once

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/check.hpp"
#include "bindings/tensor.hpp"
#include "tasks/attention.hpp"

namespace firth {

using AttentionSizes = std::vector<std::int64_t>;

inline std::string text_of(const AttentionSizes& sizes) {
    std::string text = "(";
    for (const std::int64_t size : sizes) {
        if (text.size() > 1) text.append(", ");
        text.append(std::to_string(size));
    }
    return text.append(")");
}

inline AttentionArray array_of(const Tensor& tensor, const AttentionSizes& shape, bool bf16, const char* name) {
    require(tensor.shape == shape,
            std::string(name) + " must have shape " + text_of(shape) + ", not " + text_of(tensor.shape));
    require(tensor.bf16 == bf16, std::string(name) + " must be of q's dtype");
    const AttentionSizes& s = tensor.strides;
    return {tensor.data, s[0], s[1], s[2], s[3]};
}

// The caller has broadcast the array to the shape of the scores: its strides are 0 along the axes that were broadcast.
template <class T>
AttentionTerm<T> term_of(const std::optional<py::array>& array, const AttentionSizes& shape, const char* name) {
    if (!array) return {};
    using Number = std::remove_const_t<T>;
    require(array->dtype().is(py::dtype::of<Number>()), std::string(name) + " must have another dtype");
    require_aligned(*array, name);
    require(AttentionSizes(array->shape(), array->shape() + array->ndim()) == shape,
            std::string(name) + " must have shape " + text_of(shape));
    const auto stride = [&](int axis) {
        require(array->strides(axis) % array->itemsize() == 0, std::string(name) + " must have whole strides");
        return array->shape(axis) == 1 ? 0 : array->strides(axis) / array->itemsize();
    };
    return {static_cast<T*>(const_cast<void*>(array->data())), stride(0), stride(1), stride(2), stride(3)};
}

// A task of these sizes, without terms; the four sizes of each shape are checked by the caller.
inline Attention sized_attention(const std::int64_t* q, const std::int64_t* k, const std::int64_t* v, bool bf16) {
    Attention task{};
    task.bf16 = bf16;
    task.n_batches = q[0];
    task.n_heads = q[1];
    task.n_queries = q[2];
    task.n_key_heads = k[1];
    task.n_keys = k[2];
    task.width = static_cast<int>(q[3]);
    task.value_width = static_cast<int>(v[3]);
    task.window = -1;
    return task;
}

// A task, and the objects whose memory it points to.
struct AttentionArguments {
    Attention task{};
    AttentionSizes out_shape;
    std::vector<py::object> keep;
};

inline AttentionArguments attention_arguments(const py::object& q, const py::object& k, const py::object& v,
                                              const py::dict& options) {
    AttentionArguments given;
    const Tensor tq = tensor_of(q, "q"), tk = tensor_of(k, "k"), tv = tensor_of(v, "v");
    require(tq.shape.size() == 4 && tk.shape.size() == 4 && tv.shape.size() == 4, "q, k and v must have four axes");
    require(tq.shape[3] >= 1 && tq.shape[3] <= 1 << 16 && tv.shape[3] >= 1 && tv.shape[3] <= 1 << 16,
            "widths must be 1 to 65,536");
    given.task = sized_attention(tq.shape.data(), tk.shape.data(), tv.shape.data(), tq.bf16);
    Attention& task = given.task;
    require(task.n_key_heads >= 1 ? task.n_heads % task.n_key_heads == 0 : task.n_heads == 0,
            "q's heads must be a multiple of k's");
    task.q = array_of(tq, tq.shape, task.bf16, "q");
    task.k = array_of(tk, {task.n_batches, task.n_key_heads, task.n_keys, task.width}, task.bf16, "k");
    task.v = array_of(tv, {task.n_batches, task.n_key_heads, task.n_keys, task.value_width}, task.bf16, "v");
    given.out_shape = {task.n_batches, task.n_heads, task.n_queries, task.value_width};
    const auto get = [&](const char* name) -> py::object { return options[name]; };
    const auto optional = [&](const char* name) {
        return get(name).is_none() ? std::optional<py::array>{} : std::optional<py::array>{get(name)};
    };
    task.causal = get("causal").cast<bool>();
    task.window = get("window").is_none() ? -1 : get("window").cast<std::int64_t>();
    require(task.window >= -1 && task.window <= INT64_MAX / 4, "window must not be negative");
    if (const auto lengths = optional("lengths")) {
        const auto array = lengths->cast<Array<std::int64_t>>();
        given.keep.push_back(array);
        task.lengths = vector_of(array, "lengths", task.n_batches);
        for (std::int64_t b = 0; b < task.n_batches; ++b) {
            require(task.lengths[b] >= 0 && task.lengths[b] <= task.n_keys, "lengths must be 0 to the number of keys");
        }
    }
    const AttentionSizes scores{task.n_batches, task.n_heads, task.n_queries, task.n_keys};
    task.visible = term_of<const unsigned char>(optional("visible"), scores, "visible");
    task.added = term_of<const float>(optional("added"), scores, "added");
    task.bias = term_of<const float>(optional("bias"), scores, "bias");
    if (const auto slopes = optional("slopes")) {
        const auto array = slopes->cast<Array<float>>();
        given.keep.push_back(array);
        task.slopes = vector_of(array, "slopes", task.n_heads);
    }
    task.scale = get("scale").cast<float>();
    task.dropout = get("dropout").cast<float>();
    require(task.dropout >= 0 && task.dropout < 1, "dropout must be at least 0 and below 1");
    task.seed = get("seed").cast<std::uint64_t>();
    given.keep.push_back(options);
    return given;
}

inline float* lse_of(const py::array_t<float>& lse, const Attention& task) {
    const std::int64_t rows = task.n_batches * task.n_heads * task.n_queries;
    require(lse.size() == rows && (lse.flags() & py::array::c_style) != 0, "lse must have one number for each query");
    return const_cast<float*>(lse.data());
}

}  // namespace firth
