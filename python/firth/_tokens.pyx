# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
"""Loops over Python strings, lists and dicts: pack texts as UTF-8, number tokens."""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.long cimport PyLong_AsLong
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcpy
from libcpp.vector cimport vector

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from "<atomic>" namespace "std" nogil:
    cdef cppclass atomic_flag:
        bint test_and_set()
        void clear()

cdef object _SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(str text not None):
    """The text with each lone surrogate replaced by U+FFFD, and how many there were."""
    return _SURROGATE.subn("\ufffd", text)


cdef str _kind(item):
    if item is None:
        return "None"
    if isinstance(item, float) and item != item:
        return "NaN"
    return "of type " + type(item).__name__


cdef _reject(item, str place, str wanted):
    kind = _kind(item)
    if isinstance(item, (bytes, bytearray)):
        hint = "decode it first"
    elif isinstance(item, Mapping):
        hint = "give only the text of a table's row, row['text']"
    elif item is None or kind in ("NaN", "of type NAType", "of type NaTType"):
        hint = "drop missing texts, or fill them with ''"
    else:
        hint = "give all strings, or all lists of tokens"
    raise TypeError(f"{place} is {kind}, not {wanted}; {hint}")


cdef class _Blocks:
    """The items of an iterator, in blocks. The iterator may run any code, so other threads may run in between."""

    cdef object iterator
    cdef bint strict
    cdef str name  # of the items in errors
    cdef atomic_flag used
    cdef readonly Py_ssize_t documents
    cdef readonly Py_ssize_t invalid

    def __init__(self, iterator, *, bint strict, str name="documents"):
        self.iterator = iterator
        self.strict = strict
        self.name = name

    def block(self, Py_ssize_t size):
        """The next block; RuntimeError while another call makes one."""
        if self.used.test_and_set():
            raise RuntimeError(f"{type(self).__name__} is in use by another call; give each thread an object of its own")
        try:
            return self.next_block(size)
        finally:
            self.used.clear()

    cdef next_block(self, Py_ssize_t size):
        raise NotImplementedError


cdef class Texts(_Blocks):
    """Strings from an iterator, packed as UTF-8 for TextCounter.feed: one line each, their own line ends as spaces.

    A block is `size` bytes or somewhat more, valid until the next call; None when no text is left.
    """

    cdef bytearray buffer  # never resized: a view of the last block may be left

    def __init__(self, iterator, *, bint strict, str name="documents"):
        super().__init__(iterator, strict=strict, name=name)
        self.buffer = bytearray()

    cdef next_block(self, Py_ssize_t size):
        cdef Py_ssize_t used = 0, n
        cdef bytearray larger
        cdef char* start
        cdef char* line_end
        cdef const char* source
        for text in self.iterator:
            if not PyUnicode_Check(text):
                _reject(text, f"{self.name}[{self.documents}]", "a string")
            if PyUnicode_IS_COMPACT_ASCII(text):
                source = <const char*>PyUnicode_DATA(text)
                n = PyUnicode_GET_LENGTH(text)
            else:
                # A copy that lives for a moment: PyUnicode_AsUTF8 would leave one in the user's string for good.
                encoded = self.encode(text)
                source = encoded
                n = len(encoded)
            if used + n + 1 > PyByteArray_GET_SIZE(self.buffer):
                larger = PyByteArray_FromStringAndSize(NULL, max(2 * PyByteArray_GET_SIZE(self.buffer), used + n + 1))
                memcpy(PyByteArray_AS_STRING(larger), PyByteArray_AS_STRING(self.buffer), used)
                self.buffer = larger
            start = PyByteArray_AS_STRING(self.buffer) + used
            memcpy(start, source, n)
            line_end = <char*>memchr(start, b"\n", n)
            while line_end != NULL:
                line_end[0] = b" "
                line_end = <char*>memchr(line_end + 1, b"\n", start + n - line_end - 1)
            start[n] = b"\n"
            used += n + 1
            self.documents += 1
            if used >= size:
                break
        if used == 0:
            return None
        return memoryview(self.buffer)[:used].toreadonly()

    cdef bytes encode(self, text):
        try:
            return str.encode(text)
        except UnicodeEncodeError as error:
            if self.strict:
                raise ValueError(
                    f"{self.name}[{self.documents}] holds a lone surrogate at character {error.start}, which is not "
                    "valid text; replace it, or give errors='replace'"
                ) from None
        replaced, n = replace_surrogates(text)
        self.invalid += n
        return str.encode(replaced)


cdef class Tokens(_Blocks):
    """Lists of tokens from an iterator, as numbers for TextCounter.feed_tokens.

    A block is `size` tokens or somewhat more: words not seen before (UTF-8, offsets), numbers, document ends; None when
    no document is left.
    """

    cdef dict numbers

    def __init__(self, iterator, *, bint strict, str name="documents"):
        super().__init__(iterator, strict=strict, name=name)
        self.numbers = {}

    cdef next_block(self, Py_ssize_t size):
        cdef vector[int32_t] numbers
        cdef vector[int64_t] ends
        cdef list new_words = []
        cdef PyObject* found
        cdef Py_ssize_t position
        cdef tuple tokens
        for document in self.iterator:
            if not isinstance(document, (list, tuple)):
                if (
                    isinstance(document, (str, bytes, bytearray, Mapping, AbstractSet, Iterator))
                    or not hasattr(document, "__iter__")
                    or not hasattr(document, "__len__")
                ):
                    _reject(document, f"{self.name}[{self.documents}]", "a list of tokens")
            # A list may be changed by other threads, or by what its strings do when they are compared. An iterator for
            # each of a million short documents would take as long as their words.
            tokens = tuple(document)
            for position in range(PyTuple_GET_SIZE(tokens)):
                token = <object>PyTuple_GET_ITEM(tokens, position)
                if not PyUnicode_Check(token):
                    raise TypeError(
                        f"{self.name}[{self.documents}][{position}] is {_kind(token)}, not a string: {token!r:.60}"
                    )
                found = PyDict_GetItemWithError(self.numbers, token)
                if found != NULL:
                    numbers.push_back(<int32_t>PyLong_AsLong(<object>found))
                else:
                    numbers.push_back(self.number(token, position, new_words))
            ends.push_back(<int64_t>numbers.size())
            self.documents += 1
            if <Py_ssize_t>(numbers.size() + ends.size()) >= size:
                break
        if ends.empty():
            return None
        offsets = np.zeros(len(new_words) + 1, np.int64)
        np.cumsum([len(word) for word in new_words], out=offsets[1:])
        words = np.frombuffer(b"".join(new_words), np.uint8)
        number_array = np.empty(numbers.size(), np.int32)
        end_array = np.empty(ends.size(), np.int64)
        cdef int32_t[::1] number_view = number_array
        cdef int64_t[::1] end_view = end_array
        if numbers.size():
            memcpy(&number_view[0], numbers.data(), numbers.size() * sizeof(int32_t))
        memcpy(&end_view[0], ends.data(), ends.size() * sizeof(int64_t))
        return words, offsets, number_array, end_array

    cdef int32_t number(self, token, Py_ssize_t position, list new_words) except -1:
        try:
            encoded = str.encode(token)
        except UnicodeEncodeError:
            if self.strict:
                raise ValueError(
                    f"{self.name}[{self.documents}][{position}] holds a lone surrogate, which is not valid text: {token!a:.60}; "
                    "replace it, or give errors='replace'"
                ) from None
            # Only the new spelling gets a number, so that every occurrence comes here and is counted.
            token, n = replace_surrogates(token)
            self.invalid += n
            if token in self.numbers:
                return self.numbers[token]
            encoded = str.encode(token)
        number = len(self.numbers)
        if number > 0x7FFFFFFE:
            raise ValueError("more than 2^31 - 1 different words")
        self.numbers[token] = number
        new_words.append(encoded)
        return number
