#include "nccl/next_plugin.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "nccl/profiler_exports.h"

namespace graphguard::nccl {

namespace {

// What an event of one type stands for: itself and those that NCCL hangs below it.
constexpr int kBelowCollective =
    kCollective | kProxyOperation | kProxyStep | kKernelChannel | kNetPlugin;
constexpr int kBelowPointToPoint =
    kPointToPoint | kProxyOperation | kProxyStep | kKernelChannel | kNetPlugin;
constexpr int kCopyEngine = kCopyEngineCollective | kCopyEngineSync | kCopyEngineBatch;
constexpr int kBelowGroup = kGroup | kBelowCollective | kBelowPointToPoint;
constexpr int kBelowGroupApi =
    kGroupApi | kCollectiveApi | kPointToPointApi | kKernelLaunch | kBelowGroup | kCopyEngine;

// A descriptor of version 5 or newer as version 4 has it.
EventDescriptorV4 as_v4(const EventDescriptorV5& event) {
    constexpr std::size_t kHead = offsetof(EventDescriptorV4, coll);
    EventDescriptorV4 copy;
    std::memcpy(&copy, &event, sizeof(copy));
    static_assert(sizeof(copy) <= sizeof(event) && kHead == offsetof(EventDescriptorV5, coll));
    copy.type = static_cast<std::uint8_t>(event.type);
    // Newer versions have the API event as the parent, and the group beside it for version 4.
    if (event.type == kCollective) copy.parentObj = event.coll.parentGroup;
    if (event.type == kPointToPoint) copy.parentObj = event.p2p.parentGroup;
    return copy;
}

template <typename Profiler>
const Profiler* symbol(void* library, const char* name, const Profiler& own) {
    const auto* const found = static_cast<const Profiler*>(dlsym(library, name));
    // The search of the global scope may come back here, and that would go round for ever.
    return found == &own ? nullptr : found;
}

void* open_plugin(const char* name) {
    void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr || std::strchr(name, '/') != nullptr) return library;
    return dlopen(("libnccl-profiler-" + std::string(name) + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
}

}  // namespace

bool wants_event(int mask, std::uint64_t type) {
    switch (type) {
        case kGroupApi:
            return (mask & kBelowGroupApi) != 0;
        case kCollectiveApi:
            return (mask & (kCollectiveApi | kBelowCollective | kCopyEngine)) != 0;
        case kPointToPointApi:
            return (mask & (kPointToPointApi | kBelowPointToPoint)) != 0;
        case kGroup:
            return (mask & kBelowGroup) != 0;
        case kCollective:
            return (mask & kBelowCollective) != 0;
        case kPointToPoint:
            return (mask & kBelowPointToPoint) != 0;
        default:
            // Nobody but the next plugin has asked for it.
            return true;
    }
}

int NextInterface::known_bits() const {
    constexpr int kKnown[] = {kGroupApi - 1, kCopyEngineCollective - 1, kKernelPhase - 1, ~0};
    return kKnown[table_.index()];
}

Result NextInterface::init(void** context, int* mask, const CommunicatorFacts& facts) const {
    return std::visit(
        [&](const auto* profiler) {
            if constexpr (std::is_same_v<decltype(profiler), const ProfilerV4*>) {
                return profiler->init(context, mask, facts.name, facts.hash, facts.num_nodes,
                                      facts.num_ranks, facts.rank, facts.logger);
            } else {
                return profiler->init(context, facts.hash, mask, facts.name, facts.num_nodes,
                                      facts.num_ranks, facts.rank, facts.logger);
            }
        },
        table_);
}

Result NextInterface::start(void* context, void** handle, void* event, int host_version) const {
    if (const auto* v4 = std::get_if<const ProfilerV4*>(&table_)) {
        if (host_version == 4) {
            return (*v4)->startEvent(context, handle, static_cast<EventDescriptorV4*>(event));
        }
        EventDescriptorV4 copy = as_v4(*static_cast<const EventDescriptorV5*>(event));
        return (*v4)->startEvent(context, handle, &copy);
    }
    if (const auto* v5 = std::get_if<const ProfilerV5*>(&table_)) {
        return (*v5)->startEvent(context, handle, static_cast<EventDescriptorV5*>(event));
    }
    if (const auto* v6 = std::get_if<const ProfilerV6*>(&table_)) {
        return (*v6)->startEvent(context, handle, static_cast<EventDescriptorV6*>(event));
    }
    return std::get<const ProfilerV7*>(table_)->startEvent(context, handle,
                                                           static_cast<EventDescriptorV7*>(event));
}

Result NextInterface::stop(void* handle) const {
    return std::visit([&](const auto* profiler) { return profiler->stopEvent(handle); }, table_);
}

Result NextInterface::record_state(void* handle, int state, void* arguments) const {
    return std::visit(
        [&](const auto* profiler) { return profiler->recordEventState(handle, state, arguments); },
        table_);
}

Result NextInterface::finalize(void* context) const {
    return std::visit([&](const auto* profiler) { return profiler->finalize(context); }, table_);
}

const NextPlugin& NextPlugin::instance() {
    // Never destroyed: NCCL's threads may call while the process ends.
    static const NextPlugin* const plugin =
        new NextPlugin(std::getenv("GRAPHGUARD_NEXT_PROFILER_PLUGIN"));
    return *plugin;
}

NextPlugin::NextPlugin(const char* name) {
    if (name != nullptr && *name != '\0' && std::strcmp(name, "none") != 0) load(name);
}

void NextPlugin::load(const char* name) {
    void* const library = open_plugin(name);
    if (library == nullptr) {
        const char* const reason = dlerror();
        told_ = std::string("not loaded: ") + (reason != nullptr ? reason : name);
        return;
    }
    v4_ = symbol(library, "ncclProfiler_v4", ncclProfiler_v4);
    v5_ = symbol(library, "ncclProfiler_v5", ncclProfiler_v5);
    v6_ = symbol(library, "ncclProfiler_v6", ncclProfiler_v6);
    v7_ = symbol(library, "ncclProfiler_v7", ncclProfiler_v7);
    if (v4_ == nullptr && v5_ == nullptr && v6_ == nullptr && v7_ == nullptr) {
        told_ = std::string("not loaded: no ncclProfiler_v4 to v7 of its own in ") + name;
        return;
    }
    told_ = std::string("loaded: ") + name;
}

std::optional<NextInterface> NextPlugin::for_host(int host_version) const {
    if (host_version >= 7 && v7_ != nullptr) return NextInterface(v7_);
    if (host_version >= 6 && v6_ != nullptr) return NextInterface(v6_);
    if (host_version >= 5 && v5_ != nullptr) return NextInterface(v5_);
    if (v4_ != nullptr) return NextInterface(v4_);
    return std::nullopt;
}

}  // namespace graphguard::nccl
