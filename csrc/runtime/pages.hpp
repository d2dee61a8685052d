// Memory that goes back to the system at once. A corpus allocates its largest arrays one after the other, and memory
// that malloc keeps for later would count twice.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <string>
#include <utility>

namespace firth {

class OutOfMemory : public std::bad_alloc {
  public:
    explicit OutOfMemory(std::size_t bytes) : message_("no memory for " + std::to_string(bytes) + " bytes") {}
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    std::string message_;
};

// Zeroed memory. Only pages that are written to take memory.
class Pages {
  public:
    Pages() = default;
    explicit Pages(std::size_t bytes) : bytes_(rounded(bytes)) {
        if (bytes_ == 0) return;
        void* memory =
            mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw OutOfMemory(bytes);
        data_ = memory;
#ifdef MADV_HUGEPAGE
        if (bytes_ >= (std::size_t{4} << 20)) madvise(data_, bytes_, MADV_HUGEPAGE);  // may fail, which does no harm
#endif
    }
    ~Pages() { keep(0); }
    Pages(Pages&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Pages& operator=(Pages&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }

    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }

    // Returns all pages beyond the first `bytes` to the system.
    void keep(std::size_t bytes) {
        bytes = rounded(bytes);
        if (bytes >= bytes_) return;
        munmap(static_cast<char*>(data_) + bytes, bytes_ - bytes);
        bytes_ = bytes;
        if (bytes_ == 0) data_ = nullptr;
    }

  private:
    static std::size_t rounded(std::size_t bytes) {
        constexpr std::size_t kPage = std::size_t{1} << 16;  // the largest page size of the systems we run on
        return (bytes + kPage - 1) / kPage * kPage;
    }

    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace firth
