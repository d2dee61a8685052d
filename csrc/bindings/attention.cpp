#include "runtime/attention.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "bindings/attention_task.hpp"
#include "runtime/aligned.hpp"

namespace firth {
namespace {

// The workspace of one call. A small one is kept for the thread's next call: fresh pages would cost more than a short
// sequence. During a call it is not kept for the thread, since a signal handler may call attention again.
class Workspace {
  public:
    Workspace(std::int64_t bytes, int threads) : keep_(bytes <= threads * kKept) {
        if (keep_) memory_ = std::exchange(kept, {});
        if (memory_.bytes >= bytes) return;
        memory_ = {};
        memory_.bytes = std::max(bytes, kKept);  // pages that are not touched take no memory
        memory_.allocated = std::make_unique<AlignedBytes>(memory_.bytes);
    }
    ~Workspace() {
        if (keep_) kept = std::move(memory_);
    }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    void* data() const { return memory_.allocated == nullptr ? nullptr : memory_.allocated->data; }

  private:
    struct Memory {
        std::unique_ptr<AlignedBytes> allocated;
        std::int64_t bytes = 0;
    };
    static constexpr std::int64_t kKept = 4 << 20;  // for each thread that works
    static thread_local Memory kept;

    Memory memory_;
    bool keep_;
};
thread_local Workspace::Memory Workspace::kept;

// Without the GIL.
void attend_without_gil(const Attention& task, int threads) {
    const KernelWork work;
    const Workspace workspace(attend_bytes(task, threads), threads);
    attend(task, threads, workspace.data());
}

void forward(const py::object& q, const py::object& k, const py::object& v, const py::object& out,
             const py::array_t<float>& lse, const py::dict& options, int threads) {
    AttentionArguments given = attention_arguments(q, k, v, options);
    Attention& task = given.task;
    task.out = array_of(tensor_of(out, "out", true), given.out_shape, task.bf16, "out");
    require(lse.writeable(), "lse must be writeable");
    task.lse = lse_of(lse, task);
    attend_without_gil(task, threads_of(threads));
}

// Attention without terms, for tensors of a library that offers its arrays to C code. It takes no detours, since a
// short sequence takes a few microseconds. Returns None for any other arguments: attend says what is wrong with them.
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
    Attention task = sized_attention(sq, sk, sv, given[0].code == dlpack::kBfloat);
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
    task.causal = causal;
    task.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(sq[3])));
    attend_without_gil(task, threads_of(threads));
    void* made = nullptr;
    if (exchange->object_from(owner.release(), &made) != 0) throw py::error_already_set();
    auto result = py::reinterpret_steal<py::object>(static_cast<PyObject*>(made));
    return time_first ? result.attr("swapaxes")(1, 2) : result;
}

void backward(const py::object& out_gradient, const py::object& q, const py::object& k, const py::object& v,
              const py::object& out, const py::array_t<float>& lse, const py::object& q_gradient,
              const py::object& k_gradient, const py::object& v_gradient, const std::optional<py::array>& bias_gradient,
              const py::dict& options, int threads) {
    AttentionArguments given = attention_arguments(q, k, v, options);
    Attention& task = given.task;
    task.out = array_of(tensor_of(out, "out"), given.out_shape, task.bf16, "out");
    task.lse = lse_of(lse, task);
    const AttentionSizes keys{task.n_batches, task.n_key_heads, task.n_keys, task.width};
    const AttentionSizes values{task.n_batches, task.n_key_heads, task.n_keys, task.value_width};
    const AttentionSizes queries{task.n_batches, task.n_heads, task.n_queries, task.width};
    AttentionGradients gradients{
        .out = array_of(tensor_of(out_gradient, "out_gradient"), given.out_shape, task.bf16, "out_gradient"),
        .q = array_of(tensor_of(q_gradient, "q_gradient", true), queries, task.bf16, "q_gradient"),
        .k = array_of(tensor_of(k_gradient, "k_gradient", true), keys, task.bf16, "k_gradient"),
        .v = array_of(tensor_of(v_gradient, "v_gradient", true), values, task.bf16, "v_gradient"),
        .bias = {}};
    require(!bias_gradient || bias_gradient->writeable(), "bias_gradient must be writeable");
    if (bias_gradient) {
        const auto size = [&](int axis, std::int64_t all) { return bias_gradient->shape(axis) == 1 ? 1 : all; };
        require(bias_gradient->ndim() == 4, "bias_gradient must have four axes");
        gradients.bias = term_of<float>(
            bias_gradient, {size(0, task.n_batches), size(1, task.n_heads), size(2, task.n_queries), task.n_keys},
            "bias_gradient");
        // term_of takes an axis of size 1 for one that was broadcast. That of the keys was not.
        if (task.n_keys == 1) gradients.bias.key = 1;
    }
    threads = threads_of(threads);
    const KernelWork work;
    const Workspace workspace(attend_backward_bytes(task, gradients, threads), threads);
    attend_backward(task, gradients, threads, workspace.data());
}

void weights(const py::object& q, const py::object& k, const py::array_t<float>& lse, const Array<std::int64_t>& heads,
             const Array<std::int64_t>& rows, Array<float>& out, const py::dict& options, int threads) {
    AttentionArguments given = attention_arguments(q, k, k, options);
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
    const Workspace workspace(attention_view_bytes(task, threads), threads);
    attention_maps(task, head, n_heads, row, n_rows, to, threads, workspace.data());
}

void entropies(const py::object& q, const py::object& k, const py::array_t<float>& lse, Array<float>& out,
               const py::dict& options, int threads) {
    AttentionArguments given = attention_arguments(q, k, k, options);
    given.task.lse = lse_of(lse, given.task);
    require(out.writeable() && out.size() == lse.size(), "out must have a number for each query");
    float* const to = out.mutable_data();
    threads = threads_of(threads);
    const KernelWork work;
    const Workspace workspace(attention_view_bytes(given.task, threads), threads);
    attention_row_entropies(given.task, to, threads, workspace.data());
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
