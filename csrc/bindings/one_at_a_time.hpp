// Keeps two threads from using an object at the same time.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>

namespace firth {

// A T that one call at a time may use. Bindings release the GIL, so without this a second thread could see the object
// in the middle of a change.
template <class T>
class OneAtATime {
  public:
    template <class... Arguments>
    explicit OneAtATime(Arguments&&... arguments) : object_(std::forward<Arguments>(arguments)...) {}

    // The right to use the object, for its lifetime. Throws std::runtime_error while another call has it.
    class Use {
      public:
        Use(OneAtATime& of, const char* name) : of_(of) {
            if (of_.used_.exchange(true, std::memory_order_acquire)) {
                throw std::runtime_error(std::string(name) +
                                         " is in use by another call; give each thread an object of its own, or take "
                                         "turns with a lock");
            }
        }
        ~Use() { of_.used_.store(false, std::memory_order_release); }
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
        T* operator->() const { return &of_.object_; }
        T& operator*() const { return of_.object_; }

      private:
        OneAtATime& of_;
    };
    Use use(const char* name) { return Use(*this, name); }

  private:
    T object_;
    std::atomic<bool> used_{false};
};

}  // namespace firth
