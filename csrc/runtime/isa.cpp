#include "runtime/isa.hpp"

#include <pthread.h>

#include <atomic>
#include <cstdint>
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

constexpr int kAmx = 2;  // see current_bf16

// An instruction set by the name that users see, as its level (see current_isa) and what multiplies bf16.
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
const int kDot = has_avx512_bf16() ? 1 : 0;

// Whether the processor has tiles and multiplies bf16 in them, and the operating system saves them.
bool has_amx() {
    static const bool has = [] {
#if defined(__linux__)
        unsigned a, b, c, d;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        const bool bf16 = d & (1u << 22), tiles = d & (1u << 24);
        if (!bf16 || !tiles || !__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return false;
        unsigned low, high;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        constexpr unsigned kTileState = 3u << 17;  // their configuration, and their contents
        return (low & kTileState) == kTileState;
#else
        return false;
#endif
    }();
    return has;
}

// Linux lets a process use tiles only on request, and from then on refuses signal stacks that are too small for the 8
// KiB of tiles. So firth asks at the first call that needs them, not when it is imported. The answer holds for all
// threads, and for processes that are forked later.
enum class Answer { kNotAsked, kGranted, kRefused };
std::atomic<Answer> tiles{Answer::kNotAsked};

bool tiles_granted() {
    Answer answer = tiles.load(std::memory_order_relaxed);
    if (answer == Answer::kNotAsked) {
        Answer mine = Answer::kRefused;
#if defined(__linux__)
        constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, which older headers lack
        if (syscall(SYS_arch_prctl, kRequest, kTileData) == 0) mine = Answer::kGranted;
#endif
        // Several threads may ask at the same time: the first answer holds, so that no work changes its kernels. No
        // lock, which a process that is forked meanwhile would wait for forever.
        if (tiles.compare_exchange_strong(answer, mine)) answer = mine;
    }
    return answer == Answer::kGranted;
}

bool runs_amx() { return runs_v4() && has_avx512_bf16() && has_amx() && tiles != Answer::kRefused; }

const Isa kIsas[] = {
#if defined(FIRTH_TILE_MODEL)
    {"x86-64-v2+tiles", 0, 3, runs_v2},  // first in the list, so that use_best_isa never selects it
#endif
    {"x86-64-v2", 0, 0, runs_v2},       {"x86-64-v3", 1, 0, runs_v3},
    {"x86-64-v4", 2, kDot, runs_v4},    {"x86-64-v4+amx", 2, kAmx, runs_amx},
};
#else
constexpr int kDot = 0;
bool tiles_granted() { return false; }
const Isa kIsas[] = {{"baseline", 0, 0, [] { return true; }}};
#endif

// The upper 32 bits: place in kIsas of the instruction set in use. The lower: how many HeldIsa there are. One word, so
// that a change and a new holder cannot miss each other.
constexpr std::uint64_t kHolders = 0xFFFFFFFF;
std::atomic<std::uint64_t> state{0};

// In a forked child the threads that held it are not there.
const int registered = pthread_atfork(nullptr, nullptr, [] { state &= ~kHolders; });

const Isa& selected() { return kIsas[state.load(std::memory_order_relaxed) >> 32]; }

void select(const Isa& isa) {
    const auto place = static_cast<std::uint64_t>(&isa - kIsas);
    std::uint64_t before = state.load();
    do {
        if ((before & kHolders) != 0) {
            throw std::runtime_error(std::string("instruction set '") + isa.name +
                                     "' cannot be selected while kernels are running: wait for them");
        }
    } while (!state.compare_exchange_weak(before, place << 32));
}

}  // namespace

HeldIsa::HeldIsa() { state.fetch_add(1); }
HeldIsa::~HeldIsa() { state.fetch_sub(1); }

int current_isa() {
    if ((state.load(std::memory_order_relaxed) & kHolders) == 0) {
        throw std::logic_error("a kernel is called and no HeldIsa exists: please report this as a bug of firth");
    }
    return selected().level;
}
int current_bf16() {
    const Isa& isa = selected();
    return isa.bf16 == kAmx && !tiles_granted() ? kDot : isa.bf16;
}
const char* current_isa_name() {
    const Isa* isa = &selected();
    return (isa->runs() ? isa : isa - 1)->name;  // without AMX, if Linux has refused it since it was selected
}

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
            select(isa);
            return;
        }
        available += std::string(available.empty() ? "" : ", ") + isa.name;
    }
    throw std::invalid_argument("instruction set '" + name + "' does not run here; available: " + available);
}

void use_best_isa() {
    for (auto isa = std::rbegin(kIsas); isa != std::rend(kIsas); ++isa) {
        if (isa->runs()) {
            select(*isa);
            return;
        }
    }
    throw std::runtime_error(std::string("this processor is older than ") + kIsas[0].name +
                             ", the oldest firth runs on");
}

}  // namespace firth
