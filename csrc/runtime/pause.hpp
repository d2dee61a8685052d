// For loops that wait for another thread for a moment.
#pragma once

namespace firth {

// Leaves the core's resources to its other hyperthread, and saves power.
inline void pause_spinning() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace firth
