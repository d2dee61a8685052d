// Which instruction sets this build carries, which of them run here, and which one is in use.
#pragma once

#include <string>
#include <vector>

#include "runtime/dispatch.hpp"

namespace firth {

// Names, oldest first: "x86-64-v2", ... All that this build carries, and those of them that this processor runs.
std::vector<std::string> built_isas();
std::vector<std::string> available_isas();

// The name of the one in use.
const char* current_isa_name();

// Selects an instruction set by name for all later kernel calls. Throws std::invalid_argument with the available ones.
void use_isa(const std::string& name);
// Selects the newest available one.
void use_best_isa();

}  // namespace firth
