#include "runtime/isa.hpp"

#include <atomic>
#include <iterator>
#include <stdexcept>

#if defined(FIRTH_X86_ISAS)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace firth {
namespace {

// An instruction set as users name it: the level that most kernels are compiled for, and what multiplies bf16.
struct Isa {
    const char* name;
    int level, bf16;
    bool (*runs)();
};

#if defined(FIRTH_X86_ISAS)
// Of level v3, what the compilers' run-time check has no name for in older versions: leaf 1, and leaf 0x80000001.
bool has_lzcnt_movbe_f16c() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    const bool movbe = c & (1u << 22), f16c = c & (1u << 29);
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 5)) && movbe && f16c;
}

// The features that the psABI demands of a level and that our compilers make use of. The compiler's run-time
// check also asks the operating system whether it saves the wide registers.
bool runs_v2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
bool runs_v3() {
    return runs_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_lzcnt_movbe_f16c();
}
bool runs_v4() {
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
}

// AMX: whether the processor has tiles and multiplies bf16 in them, the operating system saves them, and it lets this
// process have them. It has to be asked, once, and then holds for all threads: the room for them is not in every
// thread's state from the start.
bool tiles_granted() {
#if defined(__linux__)
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool bf16 = d & (1u << 22), tiles = d & (1u << 24);
    if (!bf16 || !tiles || !__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return false;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    constexpr unsigned kTileState = 3u << 17;         // their configuration, and what is in them
    constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, which older headers lack
    return (low & kTileState) == kTileState && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
    return false;
#endif
}
bool runs_amx() {
    static const bool runs = runs_v4() && has_avx512_bf16() && tiles_granted();
    return runs;
}

const int kDot = has_avx512_bf16() ? 1 : 0;
const Isa kIsas[] = {
#if defined(FIRTH_TILE_MODEL)
    {"x86-64-v2+tiles", 0, 3, runs_v2},  // never the best
#endif
    {"x86-64-v2", 0, 0, runs_v2},       {"x86-64-v3", 1, 0, runs_v3},
    {"x86-64-v4", 2, kDot, runs_v4},    {"x86-64-v4+amx", 2, 2, runs_amx},
};
#else
const Isa kIsas[] = {{"baseline", 0, 0, [] { return true; }}};
#endif

std::atomic<const Isa*> selected{&kIsas[0]};

}  // namespace

int current_isa() { return selected.load(std::memory_order_relaxed)->level; }
int current_bf16() { return selected.load(std::memory_order_relaxed)->bf16; }
const char* current_isa_name() { return selected.load()->name; }

std::vector<std::string> built_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : kIsas) names.emplace_back(isa.name);
    return names;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : kIsas) {
        if (isa.runs()) names.emplace_back(isa.name);
    }
    return names;
}

void use_isa(const std::string& name) {
    std::string available;
    for (const Isa& isa : kIsas) {
        if (!isa.runs()) continue;
        if (name == isa.name) {
            selected = &isa;
            return;
        }
        available += std::string(available.empty() ? "" : ", ") + isa.name;
    }
    throw std::invalid_argument("instruction set '" + name + "' does not run here; available: " + available);
}

void use_best_isa() {
    for (auto isa = std::rbegin(kIsas); isa != std::rend(kIsas); ++isa) {
        if (isa->runs()) {
            selected = &*isa;
            return;
        }
    }
    throw std::runtime_error(std::string("this processor is older than ") + kIsas[0].name +
                             ", the oldest firth runs on");
}

}  // namespace firth
