#include "runtime/isa.hpp"

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <stdexcept>

#if defined(__x86_64__) && !defined(FIRTH_ONE_ISA)
#define FIRTH_X86_ISAS
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && !defined(FIRTH_ONE_ISA)
#define FIRTH_ARM_ISAS
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace firth {
namespace {

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
bool runs_x86_64_v2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
bool runs_x86_64_v3() {
    return runs_x86_64_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_lzcnt_movbe_f16c();
}
bool runs_x86_64_v4() {
    return runs_x86_64_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
bool runs_x86_64_v4_bf16() { return runs_x86_64_v4() && __builtin_cpu_supports("avx512bf16"); }

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

bool runs_x86_64_v4_amx() { return runs_x86_64_v4_bf16() && has_amx() && tiles != Answer::kRefused; }
#if defined(FIRTH_TILE_MODEL)
bool runs_x86_64_v2_tiles() { return runs_x86_64_v2(); }
#endif
#elif defined(FIRTH_ARM_ISAS)
bool runs_aarch64() { return true; }
bool runs_aarch64_bf16() {
#if defined(__linux__)
    constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which older headers lack
    return (getauxval(AT_HWCAP2) & kBf16) != 0;
#elif defined(__APPLE__)
    int has = 0;
    std::size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has != 0;
#else
    return false;
#endif
}
#else
bool runs_baseline() { return true; }
#endif

// An instruction set, by the name that users see.
struct Row {
    const char* name;
    bool (*runs)();
};
#define FIRTH_ROW(isa, name, others, ...) {name, runs_##isa},
const Row kIsas[] = {FIRTH_ISAS(FIRTH_ROW)};

// The upper 32 bits: the instruction set in use. The lower: how many HeldIsa there are. One word, so
// that a change and a new holder cannot miss each other.
constexpr std::uint64_t kHolders = 0xFFFFFFFF;
std::atomic<std::uint64_t> state{0};

// In a forked child the threads that held it are not there.
const int registered = pthread_atfork(nullptr, nullptr, [] { state &= ~kHolders; });

int selected() { return static_cast<int>(state.load(std::memory_order_relaxed) >> 32); }

void select(const Row& isa) {
    const auto place = static_cast<std::uint64_t>(&isa - kIsas);
    std::uint64_t before = state.load();
    do {
        if ((before & kHolders) != 0) {
            throw std::runtime_error(std::string("instruction set '") + isa.name +
                                     "' cannot be selected while kernels are running: wait for them");
        }
    } while (!state.compare_exchange_weak(before, place << 32));
}

// The names of those that `which` holds for, each once.
template <class Which>
std::vector<std::string> names(Which&& which) {
    std::vector<std::string> found;
    for (const Row& isa : kIsas) {
        if (which(isa) && (found.empty() || found.back() != isa.name)) found.emplace_back(isa.name);
    }
    return found;
}

}  // namespace

HeldIsa::HeldIsa() { state.fetch_add(1); }
HeldIsa::~HeldIsa() { state.fetch_sub(1); }

Isa current_isa() {
    if ((state.load(std::memory_order_relaxed) & kHolders) == 0) {
        throw std::logic_error("a kernel is called and no HeldIsa exists: please report this as a bug of firth");
    }
    return static_cast<Isa>(selected());
}
Isa current_bf16_isa() {
    const Isa isa = current_isa();
#if defined(FIRTH_X86_ISAS)
    if (isa == Isa::x86_64_v4_amx && !tiles_granted()) return Isa::x86_64_v4_bf16;
#endif
    return isa;
}
const char* current_isa_name() {
    const int isa = selected();
    return kIsas[kIsas[isa].runs() ? isa : isa - 1].name;  // without AMX, if Linux has refused it since it was selected
}

std::vector<std::string> built_isas() {
    return names([](const Row&) { return true; });
}
std::vector<std::string> available_isas() {
    return names([](const Row& isa) { return isa.runs(); });
}

void use_isa(const std::string& name) {
    for (auto isa = std::rbegin(kIsas); isa != std::rend(kIsas); ++isa) {
        if (name == isa->name && isa->runs()) return select(*isa);
    }
    std::string available;
    for (const std::string& other : available_isas()) available += (available.empty() ? "" : ", ") + other;
    throw std::invalid_argument("instruction set '" + name + "' does not run here; available: " + available);
}

void use_best_isa() {
    for (auto isa = std::rbegin(kIsas); isa != std::rend(kIsas); ++isa) {
        if (isa->runs()) return select(*isa);
    }
    throw std::runtime_error(std::string("this processor does not run ") + kIsas[0].name +
                             ", the oldest instruction set that firth supports");
}

}  // namespace firth
