// Kernels are compiled once for each instruction set, in a namespace named after it (CMakeLists.txt lists the same):
//     FIRTH_DECLARE_KERNEL(void, scale, float* data, int n)    in the kernel's header
//     FIRTH_KERNEL(scale)(data, n)                             where it is called: the one in use
//
// A piece of work looks kernels up several times: one returns the size of the scratch that another uses. All must be of
// one instruction set, so the caller of kernels holds a HeldIsa (runtime/isa.hpp) from the first call to the last.
//
// Kernels include this, so it stays free of the standard library.
#pragma once

#if defined(__x86_64__) && !defined(FIRTH_ONE_ISA)
#define FIRTH_X86_ISAS
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
// Kernels that multiply bf16 are compiled for more instruction sets: x86-64-v4 with AVX512-BF16, the same with AMX and,
// for tests, x86-64-v2 with a software model of AMX. FIRTH_BF16_KERNEL(wanted, name) chooses among them if `wanted`.
#if defined(FIRTH_TILE_MODEL)
#define FIRTH_DECLARE_MODEL_KERNEL(result, name, ...) \
    namespace x86_64_v2_tiles {                       \
    result name(__VA_ARGS__);                         \
    }
#define FIRTH_MODEL_KERNEL(name) , &firth::x86_64_v2_tiles::name
#else
#define FIRTH_DECLARE_MODEL_KERNEL(result, name, ...)
#define FIRTH_MODEL_KERNEL(name)
#endif
#define FIRTH_DECLARE_BF16_KERNEL(result, name, ...) \
    FIRTH_DECLARE_KERNEL(result, name, __VA_ARGS__)  \
    namespace x86_64_v4_bf16 {                       \
    result name(__VA_ARGS__);                        \
    }                                                \
    namespace x86_64_v4_amx {                        \
    result name(__VA_ARGS__);                        \
    }                                                \
    FIRTH_DECLARE_MODEL_KERNEL(result, name, __VA_ARGS__)
#define FIRTH_BF16_KERNEL(wanted, name)                                                \
    ((wanted) ? firth::pick_bf16(FIRTH_KERNEL(name), &firth::x86_64_v4_bf16::name,     \
                                 &firth::x86_64_v4_amx::name FIRTH_MODEL_KERNEL(name)) \
              : FIRTH_KERNEL(name))
#else
#define FIRTH_DECLARE_BF16_KERNEL FIRTH_DECLARE_KERNEL
#define FIRTH_BF16_KERNEL(wanted, name) FIRTH_KERNEL(name)
#define FIRTH_DECLARE_KERNEL(result, name, ...) \
    namespace baseline {                        \
    result name(__VA_ARGS__);                   \
    }
#define FIRTH_KERNEL(name) firth::pick(&firth::baseline::name)
#endif

namespace firth {

// Position, oldest first, of the instruction set in use. Throws std::logic_error unless it is held.
int current_isa();
// What multiplies bf16 with it: 0 nothing, 1 AVX512-BF16, 2 AMX, 3 the software model of AMX. The first call that finds
// AMX asks the operating system for it.
int current_bf16();

// The function of the instruction set in use, of those given oldest first.
template <class F, class... Same>
F pick(F oldest, Same... newer) {
    const F table[] = {oldest, newer...};
    return table[current_isa()];
}
// The function of what multiplies bf16, of those given in the order of current_bf16.
template <class F, class... Same>
F pick_bf16(F nothing, Same... others) {
    const F table[] = {nothing, others...};
    return table[current_bf16()];
}

}  // namespace firth
