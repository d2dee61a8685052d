// Which instruction sets this build has, which of them run here, and which one is in use.
#pragma once

#include <string>
#include <vector>

#include "runtime/dispatch.hpp"

namespace firth {

// Names, oldest first: "x86-64-v2", ... All that this build has, and those of them that this processor runs.
std::vector<std::string> built_isas();
std::vector<std::string> available_isas();

// The name of the one in use.
const char* current_isa_name();

// Selects an instruction set by name for all later work. Throws std::invalid_argument with the available ones, and
// std::runtime_error while it is held.
void use_isa(const std::string& name);
// Selects the newest available one.
void use_best_isa();

// The instruction set in use does not change while an object of this type exists, so that all kernels of a piece of
// work are of one. Any number of threads may hold it.
class HeldIsa {
  public:
    HeldIsa();
    ~HeldIsa();
    HeldIsa(const HeldIsa&) = delete;
    HeldIsa& operator=(const HeldIsa&) = delete;
};

}  // namespace firth
