// The profiler plugin: what NCCL calls. Each function notes what it is told, passes it on to the
// next plugin, and returns success whatever happens here.
//
// NCCL keeps the handle that startEvent gives it for as long as a captured graph lives, uses it as
// a parent at every replay, and up to 2.30 may stop it a second time. So this plugin gives none
// that could become stale: a handle is the next plugin's, or null, which NCCL never stops, or for a
// group of version 4, without which NCCL 2.27 tells of no call in it, one that is always the same.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>

#include "nccl/next_plugin.h"
#include "nccl/profiler_calls.h"
#include "nccl/profiler_communicators.h"
#include "nccl/profiler_exports.h"

namespace graphguard::nccl {

namespace {

std::atomic<int> last_interface{0};

// What the next plugin has asked for; it may keep the pointer and change the mask at any time.
int next_mask = 0;

char group_of_v4 = 0;
void* const kGroupOfV4 = &group_of_v4;

int load(int& mask) noexcept {
    return std::atomic_ref<int>(mask).load(std::memory_order_relaxed);
}

void set_activation_mask(const Communicator& communicator, int own) noexcept {
    const NextInterface* const next = next_of(communicator);
    const int wanted = own | (next == nullptr ? 0 : load(next_mask) & next->known_bits());
    if (communicator.mask == nullptr) return;
    std::atomic_ref<int>(*communicator.mask).store(wanted, std::memory_order_relaxed);
}

// The next plugin is told of the communicator, if there is one that this NCCL can talk to.
void join_next(Communicator& communicator, const CommunicatorFacts& facts, int host_version) try {
    const NextPlugin& plugin = NextPlugin::instance();
    const auto next = plugin.for_host(host_version);
    const bool joined =
        next && next->init(&communicator.next_context, &next_mask, facts) == kSuccess;
    if (joined) communicator.next = next;
    if (joined || plugin.told().empty() || facts.logger == nullptr) return;
    facts.logger(kLogWarning, kLogInit, __FILE__, __LINE__,
                 "graphguard: the next profiler plugin (%s) does not run for this communicator%s",
                 plugin.told().c_str(),
                 next ? ": its init failed" : ": it has no interface that this NCCL knows");
} catch (...) {
    // Out of memory: this plugin works without the next one.
}

template <int kHost>
Result initialise(void** context, int* mask, const CommunicatorFacts& facts) noexcept {
    if (context == nullptr) return kSystemError;
    Communicator* const communicator = remember_communicator(facts, mask);
    *context = communicator;
    if (communicator == nullptr) return kSystemError;
    last_interface.store(kHost, std::memory_order_relaxed);
    join_next(*communicator, facts, kHost);
    set_activation_mask(*communicator, kHost == 4 ? kMaskOfV4 : kMaskSinceV5);
    return kSuccess;
}

template <int kHost>
Result init_since_5(void** context, std::uint64_t hash, int* mask, const char* name, int num_nodes,
                    int num_ranks, int rank, Logger logger) {
    return initialise<kHost>(context, mask, {hash, name, num_nodes, num_ranks, rank, logger});
}

Result init_4(void** context, int* mask, const char* name, std::uint64_t hash, int num_nodes,
              int num_ranks, int rank, Logger logger) {
    return initialise<4>(context, mask, {hash, name, num_nodes, num_ranks, rank, logger});
}

template <int kHost, typename Descriptor>
void start_next(const Communicator& communicator, void** handle, Descriptor event) {
    const NextInterface* const next = next_of(communicator);
    if (next == nullptr) return;
    if (event.type == kGroupApi) set_activation_mask(communicator, kMaskSinceV5);
    const int mask = load(next_mask) & next->known_bits();
    const bool known = (event.type & static_cast<unsigned>(next->known_bits())) != 0;
    if (!known || !wants_event(mask, event.type)) return;
    if (event.parentObj == kGroupOfV4) event.parentObj = nullptr;
    static_cast<void>(next->start(communicator.next_context, handle, &event, kHost));
}

template <int kHost, typename Descriptor>
Result start_event(void* context, void** handle, Descriptor* event) {
    // NCCL reads it whatever this does, and up to 2.30 finds the last call's there.
    *handle = nullptr;
    if (context == nullptr) return kSuccess;
    const Communicator& communicator = *static_cast<const Communicator*>(context);
    note_event(communicator, *event);
    start_next<kHost>(communicator, handle, *event);
    if (kHost == 4 && event->type == kGroup && *handle == nullptr) *handle = kGroupOfV4;
    return kSuccess;
}

// What is neither null nor this plugin's was given by the next one.
template <int kHost>
std::optional<NextInterface> owner_of(const void* handle) {
    if (handle == nullptr || handle == kGroupOfV4) return std::nullopt;
    return NextPlugin::instance().for_host(kHost);
}

template <int kHost>
Result stop_event(void* handle) {
    if (const auto next = owner_of<kHost>(handle)) static_cast<void>(next->stop(handle));
    return kSuccess;
}

template <int kHost>
Result record_event_state(void* handle, int state, void* arguments) {
    if (const auto next = owner_of<kHost>(handle)) {
        static_cast<void>(next->record_state(handle, state, arguments));
    }
    return kSuccess;
}

Result finalize(void* context) {
    if (context == nullptr) return kSuccess;
    Communicator& communicator = *static_cast<Communicator*>(context);
    const NextInterface* const next = next_of(communicator);
    if (!finalize_communicator(communicator)) return kSuccess;
    if (next != nullptr) static_cast<void>(next->finalize(communicator.next_context));
    return kSuccess;
}

template <int kHost, typename Descriptor>
constexpr ProfilerSince5<Descriptor> kProfiler = {
    "graphguard",      init_since_5<kHost>,       start_event<kHost, Descriptor>,
    stop_event<kHost>, record_event_state<kHost>, finalize};

}  // namespace

}  // namespace graphguard::nccl

using namespace graphguard::nccl;  // NOLINT: the rest of this file is what it exports

const ProfilerV4 ncclProfiler_v4 = {
    "graphguard",          init_4,  start_event<4, EventDescriptorV4>, stop_event<4>,
    record_event_state<4>, finalize};
const ProfilerV5 ncclProfiler_v5 = kProfiler<5, EventDescriptorV5>;
const ProfilerV6 ncclProfiler_v6 = kProfiler<6, EventDescriptorV6>;
const ProfilerV7 ncclProfiler_v7 = kProfiler<7, EventDescriptorV7>;

std::uint64_t graphguard_nccl_plugin_communicators(std::uint64_t* live) noexcept {
    const CommunicatorCounts counts = communicator_counts();
    if (live != nullptr) *live = counts.live;
    return counts.told;
}

std::int32_t graphguard_nccl_plugin_interface() noexcept {
    return last_interface.load(std::memory_order_relaxed);
}

std::size_t graphguard_nccl_plugin_next(char* text, std::size_t capacity) noexcept try {
    const std::string& told = NextPlugin::instance().told();
    const std::size_t copied = capacity == 0 ? 0 : std::min(told.size(), capacity - 1);
    if (capacity != 0) {
        std::memcpy(text, told.data(), copied);
        text[copied] = '\0';
    }
    return told.size();
} catch (...) {
    if (capacity != 0) *text = '\0';
    return 0;
}
