// Where the real NCCL may lie, when a library of its name is loaded already: the interposer.
#pragma once

#include <string>
#include <vector>

namespace graphguard::nccl {

// Files to try, best first, as absolute paths; the interposer itself is never among them. Only the
// first one if the environment names it: a program must not get another NCCL than it was given.
std::vector<std::string> library_candidates();

}  // namespace graphguard::nccl
