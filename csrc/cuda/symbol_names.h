// Names of functions as people write them.
#pragma once

#include <string>

namespace graphguard::cuda {

// A name as C++ writes it, if it is one of C++, else as it is. Cut to 64 KiB.
[[nodiscard]] std::string readable_name(const char* name);

// The function at an address of this process: its name if the library exports it, else the file
// name of the library; empty if there is neither.
[[nodiscard]] std::string name_at(const void* address);

}  // namespace graphguard::cuda
