// All parts of firth._core.
#include <pybind11/pybind11.h>

#include "runtime/isa.hpp"
#include "runtime/threads.hpp"

namespace firth {
void bind_attention(pybind11::module_& m);
void bind_classifier(pybind11::module_& m);
void bind_counts(pybind11::module_& m);
void bind_glove(pybind11::module_& m);
void bind_phrases(pybind11::module_& m);
void bind_quantization(pybind11::module_& m);
void bind_rows(pybind11::module_& m);
void bind_runtime(pybind11::module_& m);
void bind_sparse(pybind11::module_& m);
void bind_subwords(pybind11::module_& m);
void bind_text(pybind11::module_& m);
void bind_topk(pybind11::module_& m);
void bind_word2vec(pybind11::module_& m);
}  // namespace firth

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
    m.doc() = "The compiled kernels of firth. See _core.pyi.";
    firth::use_best_isa();
    pybind11::register_local_exception_translator([](std::exception_ptr error) {
        try {
            std::rethrow_exception(std::move(error));
        } catch (const firth::Interrupted&) {
            // The error that the signal's handler raised is already set.
        }
    });
    firth::bind_runtime(m);
    firth::bind_text(m);
    firth::bind_subwords(m);
    firth::bind_phrases(m);
    firth::bind_rows(m);
    firth::bind_sparse(m);
    firth::bind_quantization(m);
    firth::bind_topk(m);
    firth::bind_counts(m);
    firth::bind_glove(m);
    firth::bind_word2vec(m);
    firth::bind_classifier(m);
    firth::bind_attention(m);
}
