// Every binding checks shapes, strides and ranges before it releases the GIL. Errors say what is wrong.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/released.hpp"
#include "runtime/isa.hpp"

namespace firth {

namespace py = pybind11;

// Arrays are taken as they are: a wrong dtype or layout is an error, never a silent copy.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline void require(bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
}

// For loops: makes a string only if the check fails.
inline void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

inline void require_aligned(const py::array& array, const char* name) {
    require((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0,
            std::string(name) + " must be aligned to its element size");
}

// A one-dimensional contiguous array of n elements (any number if n < 0).
template <class T, int Flags>
const T* vector_of(const py::array_t<T, Flags>& array, const char* name, std::int64_t n = -1) {
    require(array.ndim() == 1, std::string(name) + " must have one dimension, not " + std::to_string(array.ndim()));
    // NumPy does not define the stride of an array of at most one element.
    require(array.size() <= 1 || array.strides(0) == static_cast<py::ssize_t>(sizeof(T)),
            std::string(name) + " must be contiguous");
    require_aligned(array, name);
    require(n < 0 || array.size() == n,
            std::string(name) + " must have " + std::to_string(n) + " elements, not " + std::to_string(array.size()));
    return array.data();
}

// A matrix whose rows are contiguous. There may be a gap between rows.
struct Matrix {
    float* data;
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t stride;  // floats between rows
};

inline Matrix matrix_of(const py::array_t<float>& array, const char* name, bool writeable) {
    require(array.ndim() == 2, std::string(name) + " must have two dimensions, not " + std::to_string(array.ndim()));
    require_aligned(array, name);
    auto stride = array.strides(0) / static_cast<py::ssize_t>(sizeof(float));
    require(array.size() == 0 || array.shape(1) <= 1 || array.strides(1) == static_cast<py::ssize_t>(sizeof(float)),
            std::string(name) + " must have contiguous rows");
    require(array.shape(0) <= 1 || (stride >= array.shape(1) && array.strides(0) % 4 == 0),
            std::string(name) + " must have its rows one after the other");
    require(!writeable || array.writeable(), std::string(name) + " must be writeable");
    // A single row may have any stride. One that is long enough is that of a padded matrix.
    if (array.shape(0) <= 1 && (stride < array.shape(1) || array.strides(0) % 4 != 0)) stride = array.shape(1);
    return {const_cast<float*>(array.data()), array.shape(0), array.shape(1), stride};
}

// A binding keeps an object of this type while it calls kernels: it holds the instruction set and releases the GIL.
class KernelWork {
    HeldIsa isa_;
    Released release_;
};

// How many threads to use if so many are asked for. Warns if that is fewer.
inline int threads_of(int threads) {
    require(threads >= 1, "threads must be at least 1, not " + std::to_string(threads));
    const int sensible = std::min(threads, sensible_threads()), used = grantable_threads(sensible);
    if (used < threads) {
        const std::string why = used < sensible ? "the system does not let this process start so many"
                                                : "more are never faster on the processors of this machine";
        const std::string message =
            "threads=" + std::to_string(threads) + ": using " + std::to_string(used) + ", since " + why;
        if (PyErr_WarnEx(PyExc_RuntimeWarning, message.c_str(), 1) != 0) throw py::error_already_set();
    }
    return used;
}

}  // namespace firth
