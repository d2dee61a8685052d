#include "runtime/threads.hpp"

#include <pthread.h>

#include <atomic>

namespace firth {
namespace {

std::atomic<bool> in_child{false};
const int registered = pthread_atfork(nullptr, nullptr, [] { in_child = true; });

}  // namespace

bool forked() { return in_child; }

}  // namespace firth
