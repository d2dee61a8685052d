#include "text/rows.hpp"

#include <algorithm>

#include "bindings/check.hpp"

namespace firth {
namespace {

// The bytes of an object from `start` on. They are valid as long as `info` exists.
std::string_view bytes_of(const py::buffer_info& info, std::int64_t start) {
    require(info.itemsize == 1 && info.ndim == 1 && (info.size == 0 || info.strides[0] == 1),
            "data must be contiguous bytes");
    require(0 <= start && start <= info.size, "start must lie in 0 .. the number of bytes");
    return {static_cast<const char*>(info.ptr) + start, static_cast<std::size_t>(info.size - start)};
}

// Limits the columns that a file may claim to have.
void check_columns(std::int64_t columns) {
    require(columns >= 1 && columns <= (1 << 28), "vector_size must lie in 1 .. 2^28, not " + std::to_string(columns));
}

py::tuple parse_text(const py::buffer& data, std::int64_t start, std::int64_t vector_size, std::int64_t limit,
                     int threads) {
    const py::buffer_info info = data.request();
    std::string_view text = bytes_of(info, start);
    check_columns(vector_size);
    threads = threads_of(threads);
    std::vector<std::int64_t> lines, cuts;
    {
        const Released release;
        text = text.substr(0, static_cast<std::size_t>(lines_end(text, limit)));
        lines = share_lines(text, threads, cuts);
    }
    const std::int64_t n = lines.back();
    py::array_t<float> matrix({n, vector_size});
    py::array_t<std::int64_t> words({n, std::int64_t{2}});
    py::array_t<std::uint8_t> status(n);
    float* const numbers = matrix.mutable_data();
    auto* const spans = reinterpret_cast<Span*>(words.mutable_data());
    auto* const statuses = reinterpret_cast<LineStatus*>(status.mutable_data());
    {
        const Released release;
        parse_lines(text, lines, cuts, vector_size, numbers, spans, statuses);
        for (std::int64_t i = 0; i < n; ++i) spans[i] = {spans[i].begin + start, spans[i].end + start};
    }
    return py::make_tuple(matrix, words, status);
}

py::tuple parse_binary(const py::buffer& data, std::int64_t start, std::int64_t vector_size, std::int64_t count) {
    const py::buffer_info info = data.request();
    const std::string_view bytes = bytes_of(info, start);
    check_columns(vector_size);
    require(count >= 0, "count must not be negative");
    // At most as many as the bytes can hold, and one that is cut off.
    count = std::min(count, static_cast<std::int64_t>(bytes.size()) / (4 * vector_size + 1) + 1);
    py::array_t<float> matrix({count, vector_size});
    py::array_t<std::int64_t> words({count, std::int64_t{2}});
    float* const numbers = matrix.mutable_data();
    auto* const spans = reinterpret_cast<Span*>(words.mutable_data());
    std::int64_t whole = 0;
    {
        const Released release;
        whole = parse_entries(bytes, count, vector_size, numbers, spans);
        for (std::int64_t i = 0; i < std::min(count, whole + 1); ++i) {
            spans[i] = {spans[i].begin + start, spans[i].end + start};
        }
    }
    return py::make_tuple(matrix, words, whole);
}

// The words at `spans`, and the rows of words that were not UTF-8, whose invalid bytes became U+FFFD.
py::tuple decode_words(const py::buffer& data, const Array<std::int64_t>& spans) {
    const py::buffer_info info = data.request();
    const std::string_view bytes = bytes_of(info, 0);
    require(spans.ndim() == 2 && spans.shape(1) == 2, "spans must have the shape (n, 2)");
    const auto* const span = reinterpret_cast<const Span*>(spans.data());
    py::list words(spans.shape(0)), replaced;
    for (py::ssize_t i = 0; i < spans.shape(0); ++i) {
        require(0 <= span[i].begin && span[i].begin <= span[i].end && span[i].end <= info.size,
                "spans[" + std::to_string(i) + "] does not lie in the data");
        if (i % 4096 == 0 && PyErr_CheckSignals() != 0) throw py::error_already_set();
        const char* const word = bytes.data() + span[i].begin;
        const py::ssize_t size = span[i].end - span[i].begin;
        PyObject* decoded = PyUnicode_DecodeUTF8(word, size, nullptr);
        if (!decoded && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
            decoded = PyUnicode_DecodeUTF8(word, size, "replace");
            replaced.append(i);
        }
        if (!decoded) throw py::error_already_set();
        PyList_SET_ITEM(words.ptr(), i, decoded);
    }
    return py::make_tuple(words, replaced);
}

py::bytes format_text(const py::bytes& words, const py::array_t<std::int64_t>& offsets,
                      const py::array_t<float>& matrix, int threads) {
    const Matrix m = matrix_of(matrix, "matrix", false);
    const std::string_view bytes(words);
    const std::int64_t* const offset = vector_of(offsets, "offsets", m.rows + 1);
    require(std::is_sorted(offset, offset + m.rows + 1) && offset[0] == 0 &&
                offset[m.rows] == static_cast<std::int64_t>(bytes.size()),
            "offsets must rise from 0 to the number of bytes");
    threads = threads_of(threads);
    std::vector<std::string> pieces;
    std::size_t size = 0;
    {
        const Released release;
        pieces = format_lines(bytes, offset, m.data, m.rows, m.columns, m.stride, threads);
        for (const std::string& piece : pieces) size += piece.size();
    }
    PyObject* const whole = PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(size));
    if (!whole) throw py::error_already_set();
    char* at = PyBytes_AS_STRING(whole);
    for (const std::string& piece : pieces) at = std::copy(piece.begin(), piece.end(), at);
    return py::reinterpret_steal<py::bytes>(whole);
}

}  // namespace

void bind_rows(py::module_& m) {
    m.def("parse_text", &parse_text, py::arg("data"), py::kw_only(), py::arg("start"), py::arg("vector_size"),
          py::arg("limit"), py::arg("threads"));
    m.def("parse_binary", &parse_binary, py::arg("data"), py::kw_only(), py::arg("start"), py::arg("vector_size"),
          py::arg("count"));
    m.def("decode_words", &decode_words, py::arg("data"), py::arg("spans").noconvert());
    m.def("format_text", &format_text, py::arg("words"), py::arg("offsets").noconvert(), py::arg("matrix").noconvert(),
          py::kw_only(), py::arg("threads"));
}

}  // namespace firth
