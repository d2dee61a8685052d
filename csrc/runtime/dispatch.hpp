// Kernels are compiled once for each instruction set, in a namespace named after it. CMakeLists.txt has the one list of
// instruction sets. A stem's kernels form one table, a struct of function pointers:
//
//     struct ScaleKernels {                         in the kernels' header
//         void (*scale)(float* data, int n);
//     };
//     FIRTH_KERNEL_TABLE(ScaleKernels, scale_kernels)
//
//     const ScaleKernels scale_kernels{.scale = scale};       at the end of the kernels' source
//
//     const ScaleKernels& kernels = scale_kernels();          where they are called: those in use
//
// One piece of work calls several kernels, and one computes the size of the scratch that another uses. All must be of
// one instruction set, so the caller holds a HeldIsa (runtime/isa.hpp) from choosing the table to the last call.
//
// Kernels include this, so it stays free of the standard library.
#pragma once

#include "isas.hpp"

namespace firth {

#define FIRTH_ENUMERATOR(isa, name, others, ...) isa,
enum class Isa { FIRTH_ISAS(FIRTH_ENUMERATOR) };

// The instruction set in use. Throws std::logic_error unless it is held.
Isa current_isa();
// The one whose kernels multiply bf16: the same, but where Linux refuses AMX. The first call that finds AMX asks for
// it.
Isa current_bf16_isa();

#define FIRTH_DECLARE_TABLE(isa, name, others, Table, table) \
    namespace isa {                                          \
    extern const Table table;                                \
    }
#define FIRTH_TABLE_OF_OTHERS(isa, name, others, table) &others::table,
#define FIRTH_TABLE_OF_ISA(isa, name, others, table) &isa::table,

// The table of kernels that do not multiply bf16.
#define FIRTH_KERNEL_TABLE(Table, table)                                               \
    FIRTH_ISAS(FIRTH_DECLARE_TABLE, Table, table)                                      \
    inline const Table& table() {                                                      \
        constexpr const Table* kTables[] = {FIRTH_ISAS(FIRTH_TABLE_OF_OTHERS, table)}; \
        return *kTables[static_cast<int>(current_isa())];                              \
    }
// The same for kernels that multiply it if `bf16`.
#define FIRTH_BF16_KERNEL_TABLE(Table, table)                                                                         \
    FIRTH_ISAS(FIRTH_DECLARE_TABLE, Table, table)                                                                     \
    inline const Table& table(bool bf16) {                                                                            \
        constexpr const Table* kTables[] = {FIRTH_ISAS(FIRTH_TABLE_OF_OTHERS, table)};                                \
        constexpr const Table* kBf16Tables[] = {FIRTH_ISAS(FIRTH_TABLE_OF_ISA, table)};                               \
        return bf16 ? *kBf16Tables[static_cast<int>(current_bf16_isa())] : *kTables[static_cast<int>(current_isa())]; \
    }

}  // namespace firth
