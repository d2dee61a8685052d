// Which instruction sets this build carries, which of them run here, and which one is in use.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

// Declares one kernel in the namespace of every instruction set it is compiled for (CMakeLists.txt lists the same),
// and calls the one in use:
//     FIRTH_DECLARE_KERNEL(void, scale, float* data, int n)    in the kernel's header
//     FIRTH_KERNEL(scale)(data, n)                             where it is called
#if defined(__x86_64__)
#define FIRTH_DECLARE_KERNEL(result, name, ...) \
    namespace x86_64_v2 {                       \
    result name(__VA_ARGS__);                   \
    }                                           \
    namespace x86_64_v3 {                       \
    result name(__VA_ARGS__);                   \
    }                                           \
    namespace x86_64_v4 {                       \
    result name(__VA_ARGS__);                   \
    }
#define FIRTH_KERNEL(name) firth::pick(&firth::x86_64_v2::name, &firth::x86_64_v3::name, &firth::x86_64_v4::name)
#else
#define FIRTH_DECLARE_KERNEL(result, name, ...) \
    namespace baseline {                        \
    result name(__VA_ARGS__);                   \
    }
#define FIRTH_KERNEL(name) firth::pick(&firth::baseline::name)
#endif

namespace firth {

// Position in built_isas() of the instruction set in use.
int current_isa();

// Names, oldest first: "x86-64-v2", ... All that this build carries, and those of them that this processor runs.
std::vector<std::string> built_isas();
std::vector<std::string> available_isas();

// Selects an instruction set by name for all later kernel calls. Throws std::invalid_argument with the available ones.
void use_isa(const std::string& name);
// Selects the newest available one.
void use_best_isa();

// The function of the instruction set in use, of those given oldest first.
template <class... F>
auto pick(F... variants) {
    using Function = std::common_type_t<F...>;
    const Function table[] = {variants...};
    return table[current_isa()];
}

}  // namespace firth
