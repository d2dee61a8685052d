#include "runtime/isa.hpp"

#include <atomic>
#include <iterator>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace firth {
namespace {

std::atomic<int> selected{0};

#if defined(__x86_64__)
const char* const kNames[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};

// Of level v3, what the compilers' run-time check has no name for in older versions: leaf 1, and leaf 0x80000001.
bool has_lzcnt_movbe_f16c() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    const bool movbe = c & (1u << 22), f16c = c & (1u << 29);
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 5)) && movbe && f16c;
}

// The features that the psABI demands of a level and that our compilers make use of. The compiler's run-time
// check also asks the operating system whether it saves the wide registers.
bool runs(int isa) {
    __builtin_cpu_init();
    const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_lzcnt_movbe_f16c();
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return isa == 0 ? v2 : isa == 1 ? v3 : v4;
}
#else
const char* const kNames[] = {"baseline"};
bool runs(int) { return true; }
#endif

const int kCount = static_cast<int>(std::size(kNames));

}  // namespace

int current_isa() { return selected; }

bool current_bf16() {
#if defined(__x86_64__)
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has && selected == kCount - 1;
#else
    return false;
#endif
}

std::vector<std::string> built_isas() { return {std::begin(kNames), std::end(kNames)}; }

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (int isa = 0; isa < kCount; ++isa) {
        if (runs(isa)) names.emplace_back(kNames[isa]);
    }
    return names;
}

void use_isa(const std::string& name) {
    std::string available;
    for (int isa = 0; isa < kCount; ++isa) {
        if (!runs(isa)) continue;
        if (name == kNames[isa]) {
            selected = isa;
            return;
        }
        available += std::string(available.empty() ? "" : ", ") + kNames[isa];
    }
    throw std::invalid_argument("instruction set '" + name + "' does not run here; available: " + available);
}

void use_best_isa() {
    for (int isa = kCount - 1; isa >= 0; --isa) {
        if (runs(isa)) {
            selected = isa;
            return;
        }
    }
    throw std::runtime_error(std::string("this processor is older than ") + kNames[0] + ", the oldest firth runs on");
}

}  // namespace firth
