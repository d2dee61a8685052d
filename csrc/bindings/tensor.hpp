// Arrays of any library: NumPy's own, or a DLPack capsule of somebody else's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/check.hpp"

namespace firth {

// What DLPack's C header declares (dmlc/dlpack, version 0.x, "dltensor" capsules), as far as it is read here.
namespace dlpack {
struct Tensor {
    void* data;
    std::int32_t device_type, device_id;
    std::int32_t ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: one after the other
    std::uint64_t byte_offset;
};
constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kFloat = 2, kBfloat = 4;

// Not so of tensors that stand for others while a program is traced.
inline bool has_memory(const Tensor& tensor) {
    if (tensor.data != nullptr) return true;
    for (std::int32_t i = 0; i < tensor.ndim; ++i) {
        if (tensor.shape[i] == 0) return true;
    }
    return false;
}

struct ManagedTensor {
    std::uint32_t major, minor;
    void* context;
    void (*deleter)(ManagedTensor*);
    std::uint64_t flags;
    Tensor tensor;
};
// What a type offers C code under the name __dlpack_c_exchange_api__, since DLPack 1.3: its arrays without a call of
// Python's. Functions return 0, or -1 with Python's error set.
struct Exchange {
    std::uint32_t major, minor;
    Exchange* earlier;
    int (*allocate)(Tensor* prototype, ManagedTensor** out, void* context,
                    void (*set_error)(void* context, const char* kind, const char* message));
    int (*managed_from)(void* object, ManagedTensor** out);
    int (*object_from)(ManagedTensor* tensor, void** object);  // takes the tensor over
    int (*borrowed_from)(void* object, Tensor* out);           // lives as long as the object does
    int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** stream);
};

// Of an object's type, or null. The first type that has one, torch's as a rule, is asked once.
inline Exchange* exchange_of(const py::object& object) {
    struct Known {
        PyTypeObject* type;
        Exchange* exchange;
    };
    static std::atomic<const Known*> known{nullptr};  // one pointer: threads may call without a lock of Python's
    PyTypeObject* const type = Py_TYPE(object.ptr());
    if (const Known* const first = known.load(std::memory_order_acquire); first != nullptr && first->type == type) {
        return first->exchange;
    }
    const py::object capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    auto* const found = static_cast<Exchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (found->major != 1 || found->borrowed_from == nullptr) return nullptr;
    if (known.load(std::memory_order_acquire) == nullptr) {
        Py_INCREF(type);
        const Known* nobody = nullptr;
        auto mine = std::make_unique<const Known>(Known{type, found});
        if (known.compare_exchange_strong(nobody, mine.get(), std::memory_order_release)) {
            mine.release();  // for good, as the type
        } else {
            Py_DECREF(type);
        }
    }
    return found;
}
}  // namespace dlpack

// An array in memory of ours; it lives as long as the object it was taken from.
struct Tensor {
    void* data;
    bool bf16;                                 // otherwise float32
    std::vector<std::int64_t> shape, strides;  // strides in elements
};

inline Tensor tensor_of(const dlpack::Tensor& from, const char* name) {
    const std::string what = name;
    Tensor tensor{};
    require(from.device_type == dlpack::kCpu && dlpack::has_memory(from), what + " must lie in the processor's memory");
    tensor.bf16 = from.code == dlpack::kBfloat && from.bits == 16 && from.lanes == 1;
    require(tensor.bf16 || (from.code == dlpack::kFloat && from.bits == 32 && from.lanes == 1),
            what + " must be float32 or bf16");
    tensor.data = static_cast<char*>(from.data) + from.byte_offset;
    tensor.shape.assign(from.shape, from.shape + from.ndim);
    tensor.strides.resize(tensor.shape.size());
    std::int64_t stride = 1;
    for (std::size_t i = tensor.shape.size(); i-- > 0; stride *= tensor.shape[i]) {
        tensor.strides[i] = from.strides != nullptr ? from.strides[i] : stride;
    }
    return tensor;
}

// NumPy arrays of 16-bit unsigned integers are taken for bf16, which NumPy has no name for.
inline Tensor tensor_of(const py::object& object, const char* name, bool writeable = false) {
    const std::string what = name;
    Tensor tensor{};
    if (py::isinstance<py::array>(object)) {
        const auto array = py::reinterpret_borrow<py::array>(object);
        tensor.bf16 = array.dtype().is(py::dtype::of<std::uint16_t>());
        require(tensor.bf16 || array.dtype().is(py::dtype::of<float>()), what + " must be float32 or bf16");
        require(!writeable || array.writeable(), what + " must be writeable");
        require_aligned(array, name);
        tensor.data = const_cast<void*>(array.data());
        for (py::ssize_t i = 0; i < array.ndim(); ++i) {
            require(array.strides(i) % array.itemsize() == 0, what + " must have strides of whole elements");
            tensor.shape.push_back(array.shape(i));
            tensor.strides.push_back(array.strides(i) / array.itemsize());
        }
        return tensor;
    }
    require(PyCapsule_IsValid(object.ptr(), "dltensor") != 0, what + " must be an array or a DLPack capsule");
    return tensor_of(*static_cast<const dlpack::Tensor*>(PyCapsule_GetPointer(object.ptr(), "dltensor")), name);
}

}  // namespace firth
