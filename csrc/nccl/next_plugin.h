// Another profiler plugin behind this one. NCCL loads one; this passes everything on to the next,
// so that the two work in one process.
//
// The next plugin's event handles go to NCCL and come back untouched. Between versions 5, 6 and 7
// an event's descriptor differs only in what a newer version has added at the end of a member or as
// a new one, so an older plugin can read a newer descriptor. NCCL does the same by copying.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "nccl/profiler_v4.h"
#include "nccl/profiler_v5.h"
#include "nccl/profiler_v6.h"
#include "nccl/profiler_v7.h"

namespace graphguard::nccl {

// What NCCL tells a plugin of a communicator.
struct CommunicatorFacts {
    std::uint64_t hash;
    const char* name;
    int num_nodes;
    int num_ranks;
    int rank;
    Logger logger;
};

// One version of the next plugin's interface.
class NextInterface {
  public:
    using Table =
        std::variant<const ProfilerV4*, const ProfilerV5*, const ProfilerV6*, const ProfilerV7*>;

    explicit NextInterface(Table table) : table_(table) {}

    [[nodiscard]] int version() const { return static_cast<int>(table_.index()) + 4; }

    // The activation mask of which NCCL knows `host_version` and the next plugin its own.
    [[nodiscard]] int known_bits() const;

    Result init(void** context, int* mask, const CommunicatorFacts& facts) const;

    // `event` is a descriptor of NCCL's version `host_version`, which is not below version().
    Result start(void* context, void** handle, void* event, int host_version) const;
    Result stop(void* handle) const;
    Result record_state(void* handle, int state, void* arguments) const;
    Result finalize(void* context) const;

  private:
    Table table_;
};

// Whether NCCL would call a plugin with this mask for an event of this type. NCCL starts parents of
// the events that are asked for (src/plugin/profiler.cc).
[[nodiscard]] bool wants_event(int mask, std::uint64_t type);

class NextPlugin {
  public:
    // The one that the environment variable GRAPHGUARD_NEXT_PROFILER_PLUGIN names, in the forms
    // that NCCL_PROFILER_PLUGIN has: a path, a file name, the NAME of libnccl-profiler-NAME.so, or
    // `none`. It is loaded when this is first called, and never unloaded.
    static const NextPlugin& instance();

    explicit NextPlugin(const char* name);

    // Its newest interface that an NCCL of this version can be passed on to.
    [[nodiscard]] std::optional<NextInterface> for_host(int host_version) const;

    // What was loaded, or why nothing was; empty if nothing was asked for.
    [[nodiscard]] const std::string& told() const { return told_; }

  private:
    void load(const char* name);

    const ProfilerV4* v4_ = nullptr;
    const ProfilerV5* v5_ = nullptr;
    const ProfilerV6* v6_ = nullptr;
    const ProfilerV7* v7_ = nullptr;
    std::string told_;
};

}  // namespace graphguard::nccl
