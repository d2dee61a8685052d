#include "kernels/quantization.hpp"

#include <vector>

#include "bindings/check.hpp"

namespace firth {
namespace {

py::array_t<std::uint8_t> nearest(const py::array_t<float>& points, const Array<float>& centroids) {
    const Matrix p = matrix_of(points, "points", false);
    const Matrix c = matrix_of(centroids, "centroids", false);
    require(p.columns >= 1 && p.columns == c.columns,
            "points and centroids must have as many columns, at least 1: not " + std::to_string(p.columns) + " and " +
                std::to_string(c.columns));
    require(1 <= c.rows && c.rows <= 256, "there must be 1 to 256 centroids, not " + std::to_string(c.rows));
    py::array_t<std::uint8_t> codes(p.rows);
    std::uint8_t* const out = codes.mutable_data();
    std::vector<float> scratch(static_cast<std::size_t>(p.columns * kPointsAtOnce));
    {
        const KernelWork work;
        const QuantizationKernels& kernels = quantization_kernels();
        in_steps(0, p.rows, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
            kernels.nearest_centroids({p.data + begin * p.stride, p.stride, c.data, c.rows, c.columns}, end - begin,
                                      out + begin, scratch.data());
        });
    }
    return codes;
}

}  // namespace

void bind_quantization(py::module_& m) {
    m.def("nearest_centroids", &nearest, py::arg("points").noconvert(), py::kw_only(),
          py::arg("centroids").noconvert());
}

}  // namespace firth
