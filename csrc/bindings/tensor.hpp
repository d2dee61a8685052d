// Arrays of any library: NumPy arrays, or DLPack capsules of other libraries.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/check.hpp"

namespace firth {

// The parts of DLPack's C header that are used here (dmlc/dlpack, version 0.x, "dltensor" capsules).
namespace dlpack {
struct Tensor {
    void* data;
    std::int32_t device_type, device_id;
    std::int32_t ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: contiguous
    std::uint64_t byte_offset;
};
constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kFloat = 2, kBfloat = 4;

// False for tensors that are placeholders while a program is traced.
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
// A type offers this to C code as __dlpack_c_exchange_api__ (DLPack 1.3): access to its arrays without calling Python.
// Functions return 0, or -1 with a Python error set.
struct Exchange {
    std::uint32_t major, minor;
    Exchange* earlier;
    int (*allocate)(Tensor* prototype, ManagedTensor** out, void* context,
                    void (*set_error)(void* context, const char* kind, const char* message));
    int (*managed_from)(void* object, ManagedTensor** out);
    int (*object_from)(ManagedTensor* tensor, void** object);  // takes ownership of the tensor
    int (*borrowed_from)(void* object, Tensor* out);           // lives as long as the object does
    int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** stream);
};

// That of an object's type, or null. The first type that has one, usually torch's, is asked only once.
inline Exchange* exchange_of(const py::object& object) {
    struct Known {
        PyTypeObject* type;
        Exchange* exchange;
    };
    static std::atomic<const Known*> known{nullptr};  // one pointer: threads may call without the GIL
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
            mine.release();  // kept forever, as the type is
        } else {
            Py_DECREF(type);
        }
    }
    return found;
}
}  // namespace dlpack

// An array in main memory. It is valid as long as the object it was taken from.
struct Tensor {
    void* data;
    bool bf16;                                 // otherwise float32
    std::vector<std::int64_t> shape, strides;  // strides in elements
};

inline Tensor tensor_of(const dlpack::Tensor& from, const char* name) {
    const std::string what = name;
    Tensor tensor{};
    require(from.device_type == dlpack::kCpu && dlpack::has_memory(from), what + " must be in the processor's memory");
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

// NumPy has no bf16, so arrays of 16-bit unsigned integers are read as bf16.
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
