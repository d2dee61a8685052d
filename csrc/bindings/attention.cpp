#include "runtime/attention.hpp"

#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "bindings/check.hpp"
#include "bindings/tensor.hpp"

namespace firth {
namespace {

using Sizes = std::vector<std::int64_t>;

std::string text_of(const Sizes& sizes) {
    std::string text = "(";
    for (const std::int64_t size : sizes) {
        if (text.size() > 1) text.append(", ");
        text.append(std::to_string(size));
    }
    return text.append(")");
}

AttentionArray array_of(const Tensor& tensor, const Sizes& shape, bool bf16, const char* name) {
    require(tensor.shape == shape,
            std::string(name) + " must have shape " + text_of(shape) + ", not " + text_of(tensor.shape));
    require(tensor.bf16 == bf16, std::string(name) + " must be of q's dtype");
    const Sizes& s = tensor.strides;
    return {tensor.data, s[0], s[1], s[2], s[3]};
}

// Broadcasting is the caller's: the array has the shape of the scores, and strides of 0 where one number stands for
// all.
template <class T>
AttentionTerm<T> term_of(const std::optional<py::array>& array, const Sizes& shape, const char* name) {
    if (!array) return {};
    using Number = std::remove_const_t<T>;
    require(array->dtype().is(py::dtype::of<Number>()), std::string(name) + " must have another dtype");
    require_aligned(*array, name);
    require(Sizes(array->shape(), array->shape() + array->ndim()) == shape,
            std::string(name) + " must have shape " + text_of(shape));
    const auto stride = [&](int axis) {
        require(array->strides(axis) % array->itemsize() == 0, std::string(name) + " must have whole strides");
        return array->shape(axis) == 1 ? 0 : array->strides(axis) / array->itemsize();
    };
    return {static_cast<T*>(const_cast<void*>(array->data())), stride(0), stride(1), stride(2), stride(3)};
}

// The arguments that all functions share; what they point to belongs to `keep`.
struct Given {
    Attention task{};
    Sizes out_shape;
    std::vector<py::object> keep;
};

Given task_of(const py::object& q, const py::object& k, const py::object& v, const py::dict& options) {
    Given given;
    Attention& task = given.task;
    const Tensor tq = tensor_of(q, "q"), tk = tensor_of(k, "k"), tv = tensor_of(v, "v");
    require(tq.shape.size() == 4 && tk.shape.size() == 4 && tv.shape.size() == 4, "q, k and v must have four axes");
    task.bf16 = tq.bf16;
    task.n_batches = tq.shape[0];
    task.n_heads = tq.shape[1];
    task.n_queries = tq.shape[2];
    task.n_key_heads = tk.shape[1];
    task.n_keys = tk.shape[2];
    require(tq.shape[3] >= 1 && tq.shape[3] <= 1 << 16 && tv.shape[3] >= 1 && tv.shape[3] <= 1 << 16,
            "widths must be 1 to 65,536");
    task.width = static_cast<int>(tq.shape[3]);
    task.value_width = static_cast<int>(tv.shape[3]);
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
    const Sizes scores{task.n_batches, task.n_heads, task.n_queries, task.n_keys};
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

float* lse_of(const py::array_t<float>& lse, const Attention& task) {
    const std::int64_t rows = task.n_batches * task.n_heads * task.n_queries;
    require(lse.size() == rows && (lse.flags() & py::array::c_style) != 0, "lse must have a number for each query");
    return const_cast<float*>(lse.data());
}

void forward(const py::object& q, const py::object& k, const py::object& v, const py::object& out,
             const py::array_t<float>& lse, const py::dict& options, int threads) {
    Given given = task_of(q, k, v, options);
    Attention& task = given.task;
    task.out = array_of(tensor_of(out, "out", true), given.out_shape, task.bf16, "out");
    require(lse.writeable(), "lse must be writeable");
    task.lse = lse_of(lse, task);
    threads = threads_of(threads);
    const KernelWork work;
    attend(task, threads);
}

// Attention without any terms, of tensors whose library offers its arrays to C code: nothing but the work is done,
// since a short sequence takes a few microseconds. None if these are not such tensors; what is wrong with them is said
// elsewhere.
py::object forward_plain(const py::object& q, const py::object& k, const py::object& v, bool causal, int threads) {
    dlpack::Exchange* const exchange = dlpack::exchange_of(q);
    if (exchange == nullptr || Py_TYPE(k.ptr()) != Py_TYPE(q.ptr()) || Py_TYPE(v.ptr()) != Py_TYPE(q.ptr())) {
        return py::none();
    }
    dlpack::Tensor given[3];
    const py::object* const objects[3] = {&q, &k, &v};
    for (int i = 0; i < 3; ++i) {
        if (exchange->borrowed_from(objects[i]->ptr(), &given[i]) != 0) {
            PyErr_Clear();
            return py::none();
        }
        const dlpack::Tensor& one = given[i];
        const bool fits =
            one.device_type == dlpack::kCpu && one.ndim == 4 && one.lanes == 1 && one.strides != nullptr &&
            ((one.code == dlpack::kFloat && one.bits == 32) || (one.code == dlpack::kBfloat && one.bits == 16)) &&
            one.code == given[0].code && one.shape[3] >= 1 && one.shape[3] <= 1 << 16 && dlpack::has_memory(one);
        if (!fits) return py::none();
    }
    const std::int64_t *sq = given[0].shape, *sk = given[1].shape, *sv = given[2].shape;
    if (sk[0] != sq[0] || sv[0] != sq[0] || sk[1] != sv[1] || sk[2] != sv[2] || sk[3] != sq[3] || sk[1] < 1 ||
        sq[1] % sk[1] != 0) {
        return py::none();
    }
    // Heads lie where q's do.
    const bool time_first = sq[1] > 1 && sq[2] > 1 && given[0].strides[1] < given[0].strides[2];
    std::int64_t shape[4] = {sq[0], time_first ? sq[2] : sq[1], time_first ? sq[1] : sq[2], sv[3]};
    dlpack::Tensor prototype = given[0];
    prototype.data = nullptr;
    prototype.shape = shape;
    prototype.strides = nullptr;
    prototype.byte_offset = 0;
    dlpack::ManagedTensor* out = nullptr;
    if (exchange->allocate(&prototype, &out, nullptr, [](void*, const char*, const char*) {}) != 0) {
        PyErr_Clear();
        throw std::bad_alloc();
    }
    std::unique_ptr<dlpack::ManagedTensor, void (*)(dlpack::ManagedTensor*)> owner(out, out->deleter);
    Attention task{};
    const auto view = [](const dlpack::Tensor& one) {
        const std::int64_t* const s = one.strides;
        return AttentionArray{static_cast<char*>(one.data) + one.byte_offset, s[0], s[1], s[2], s[3]};
    };
    task.q = view(given[0]);
    task.k = view(given[1]);
    task.v = view(given[2]);
    const std::int64_t row = sv[3], lines = shape[2] * row, blocks = shape[1] * lines;
    task.out = {static_cast<char*>(out->tensor.data) + out->tensor.byte_offset, blocks, time_first ? row : lines,
                time_first ? lines : row, 1};
    task.bf16 = given[0].code == dlpack::kBfloat;
    task.n_batches = sq[0];
    task.n_heads = sq[1];
    task.n_queries = sq[2];
    task.n_key_heads = sk[1];
    task.n_keys = sk[2];
    task.width = static_cast<int>(sq[3]);
    task.value_width = static_cast<int>(sv[3]);
    task.causal = causal;
    task.window = -1;
    task.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(sq[3])));
    threads = threads_of(threads);
    {
        const KernelWork work;
        attend(task, threads);
    }
    void* made = nullptr;
    if (exchange->object_from(owner.release(), &made) != 0) throw py::error_already_set();
    auto result = py::reinterpret_steal<py::object>(static_cast<PyObject*>(made));
    return time_first ? result.attr("swapaxes")(1, 2) : result;
}

void backward(const py::object& out_gradient, const py::object& q, const py::object& k, const py::object& v,
              const py::object& out, const py::array_t<float>& lse, const py::object& q_gradient,
              const py::object& k_gradient, const py::object& v_gradient, const std::optional<py::array>& bias_gradient,
              const py::dict& options, int threads) {
    Given given = task_of(q, k, v, options);
    Attention& task = given.task;
    task.out = array_of(tensor_of(out, "out"), given.out_shape, task.bf16, "out");
    task.lse = lse_of(lse, task);
    const AttentionArray d_out =
        array_of(tensor_of(out_gradient, "out_gradient"), given.out_shape, task.bf16, "out_gradient");
    const AttentionArray dq =
        array_of(tensor_of(q_gradient, "q_gradient", true), {task.n_batches, task.n_heads, task.n_queries, task.width},
                 task.bf16, "q_gradient");
    const AttentionArray dk =
        array_of(tensor_of(k_gradient, "k_gradient", true), {task.n_batches, task.n_key_heads, task.n_keys, task.width},
                 task.bf16, "k_gradient");
    const AttentionArray dv =
        array_of(tensor_of(v_gradient, "v_gradient", true),
                 {task.n_batches, task.n_key_heads, task.n_keys, task.value_width}, task.bf16, "v_gradient");
    require(!bias_gradient || bias_gradient->writeable(), "bias_gradient must be writeable");
    AttentionTerm<float> bias{};
    if (bias_gradient) {
        const auto size = [&](int axis, std::int64_t all) { return bias_gradient->shape(axis) == 1 ? 1 : all; };
        require(bias_gradient->ndim() == 4, "bias_gradient must have four axes");
        bias = term_of<float>(bias_gradient,
                              {size(0, task.n_batches), size(1, task.n_heads), size(2, task.n_queries), task.n_keys},
                              "bias_gradient");
        // term_of takes the stride of one number for that of a broadcast axis; along the keys it is none.
        if (task.n_keys == 1) bias.key = 1;
    }
    threads = threads_of(threads);
    const KernelWork work;
    attend_backward(task, d_out, dq, dk, dv, bias, threads);
}

void weights(const py::object& q, const py::object& k, const py::array_t<float>& lse, const Array<std::int64_t>& heads,
             const Array<std::int64_t>& rows, Array<float>& out, const py::dict& options, int threads) {
    Given given = task_of(q, k, k, options);
    Attention& task = given.task;
    task.lse = lse_of(lse, task);
    const std::int64_t *head = vector_of(heads, "heads"), *row = vector_of(rows, "rows");
    for (py::ssize_t i = 0; i < heads.size(); ++i) {
        require(head[i] >= 0 && head[i] < task.n_heads, "there is no such head");
    }
    for (py::ssize_t i = 0; i < rows.size(); ++i) {
        require(row[i] >= 0 && row[i] < task.n_queries, "there is no such row");
    }
    require(out.writeable() && out.size() == task.n_batches * heads.size() * rows.size() * task.n_keys,
            "out must have a number for each batch, head, row and key");
    float* const to = out.mutable_data();
    const std::int64_t n_heads = heads.size(), n_rows = rows.size();
    threads = threads_of(threads);
    const KernelWork work;
    attention_maps(task, head, n_heads, row, n_rows, to, threads);
}

void entropies(const py::object& q, const py::object& k, const py::array_t<float>& lse, Array<float>& out,
               const py::dict& options, int threads) {
    Given given = task_of(q, k, k, options);
    given.task.lse = lse_of(lse, given.task);
    require(out.writeable() && out.size() == lse.size(), "out must have a number for each query");
    float* const to = out.mutable_data();
    threads = threads_of(threads);
    const KernelWork work;
    attention_row_entropies(given.task, to, threads);
}

}  // namespace

void bind_attention(py::module_& m) {
    using namespace py::literals;
    m.def("attend", &forward, "q"_a, "k"_a, "v"_a, "out"_a.noconvert(), "lse"_a.noconvert(), py::kw_only(), "options"_a,
          "threads"_a);
    m.def("attend_plain", &forward_plain, "q"_a, "k"_a, "v"_a, py::kw_only(), "causal"_a, "threads"_a);
    m.def("attend_backward", &backward, "out_gradient"_a, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a.noconvert(),
          "q_gradient"_a, "k_gradient"_a, "v_gradient"_a, "bias_gradient"_a, py::kw_only(), "options"_a, "threads"_a);
    m.def("attention_weights", &weights, "q"_a, "k"_a, "lse"_a.noconvert(), "heads"_a.noconvert(), "rows"_a.noconvert(),
          "out"_a.noconvert(), py::kw_only(), "options"_a, "threads"_a);
    m.def("attention_entropies", &entropies, "q"_a, "k"_a, "lse"_a.noconvert(), "out"_a.noconvert(), py::kw_only(),
          "options"_a, "threads"_a);
}

}  // namespace firth
