// The functions of NCCL that say what a call belongs to: groups and communicators, as the
// interposer exports them.
#include <cstddef>
#include <cstdint>

#include "nccl/interposed_thread.h"
#include "nccl/known_communicators.h"
#include "nccl/nccl_types.h"
#include "nccl/slots.h"

namespace graphguard::nccl {

namespace {

template <typename... Arguments>
Result call(Slot& slot, Arguments... arguments) noexcept {
    return slot.as<Result(Arguments...)>()(arguments...);
}

bool taken(Result result) noexcept {
    return result == kSuccess || result == kInProgress;
}

Result start_group(Slot& slot) noexcept {
    const Passage passage;
    const Result result = call(slot);
    if (passage.outermost() && result == kSuccess) passage.thread().group_started();
    return result;
}

Result end_group(Slot& slot) noexcept {
    const Passage passage;
    const Result result = call(slot);
    if (passage.outermost()) passage.thread().group_ended(taken(result));
    return result;
}

// NCCL ends the group and launches nothing.
Result simulate_group(Slot& slot, SimulationInfo* info) noexcept {
    const Passage passage;
    const Result result = call(slot, info);
    if (passage.outermost()) passage.thread().group_ended(false);
    return result;
}

// `make` calls the real library, which may call other functions of this file meanwhile.
template <typename Make>
Result make_communicator(Communicator* place, const Membership& membership, Make make) noexcept {
    const Passage passage;
    // NCCL writes it at once or when the group ends. What lies there before is no communicator.
    if (place != nullptr) *place = nullptr;
    const Result result = make();
    if (passage.outermost() && taken(result)) passage.thread().communicator(place, membership);
    return result;
}

Result make_all(Slot& slot, Communicator* places, int count, const int* devices) noexcept {
    const Passage passage;
    const Result result = call(slot, places, count, devices);
    if (!passage.outermost() || result != kSuccess || places == nullptr) return result;
    // All of its ranks are in this process, where an address is theirs alone.
    UniqueId id{};
    *reinterpret_cast<Communicator*>(id.internal) = places[0];
    for (int rank = 0; rank < count; ++rank) {
        passage.thread().communicator(&places[rank], {hash_of(&id, 1), rank, count});
    }
    return result;
}

Result end_communicator(Slot& slot, Communicator communicator) noexcept {
    // Before NCCL frees it: another thread may be given the same address.
    known_communicators().forget(communicator);
    const Passage passage;
    return call(slot, communicator);
}

Result init_rank(Slot& slot, Communicator* place, int num_ranks, UniqueId id, int rank) noexcept {
    return make_communicator(place, {hash_of(&id, 1), rank, num_ranks},
                             [&] { return call(slot, place, num_ranks, id, rank); });
}

Result init_rank_config(Slot& slot, Communicator* place, int num_ranks, UniqueId id, int rank,
                        Config* config) noexcept {
    return make_communicator(place, {hash_of(&id, 1), rank, num_ranks},
                             [&] { return call(slot, place, num_ranks, id, rank, config); });
}

Result init_rank_scalable(Slot& slot, Communicator* place, int num_ranks, int rank, int num_ids,
                          UniqueId* ids, Config* config) noexcept {
    return make_communicator(place, {hash_of(ids, num_ids), rank, num_ranks}, [&] {
        return call(slot, place, num_ranks, rank, num_ids, ids, config);
    });
}

Result split(Slot& slot, Communicator parent, int color, int key, Communicator* place,
             Config* config) noexcept {
    const std::uint64_t hash = known_communicators().next_child_hash(parent, color);
    // Which rank it is in the child depends on the other ranks' keys; NCCL is asked later.
    return make_communicator(place, {hash, -1, 0},
                             [&] { return call(slot, parent, color, key, place, config); });
}

// Apart from every colour.
constexpr std::int64_t kShrunk = std::int64_t{1} << 32;

Result shrink(Slot& slot, Communicator parent, int* excluded, int num_excluded, Communicator* place,
              Config* config, int flags) noexcept {
    const std::uint64_t hash =
        known_communicators().next_child_hash(parent, kShrunk + num_excluded);
    return make_communicator(place, {hash, -1, 0}, [&] {
        return call(slot, parent, excluded, num_excluded, place, config, flags);
    });
}

const char* text(Slot& slot, Result result) noexcept {
    if (slot.find() == nullptr) return "graphguard's interposer has found no NCCL to call";
    return slot.as<const char*(Result)>()(result);
}

const char* last_error(Slot& slot, Communicator communicator) noexcept {
    if (slot.find() == nullptr) return "graphguard's interposer has found no NCCL to call";
    return slot.as<const char*(Communicator)>()(communicator);
}

}  // namespace

}  // namespace graphguard::nccl

using graphguard::nccl::Communicator;
using graphguard::nccl::Config;
using graphguard::nccl::Result;
using graphguard::nccl::SimulationInfo;
using graphguard::nccl::UniqueId;

#define GRAPHGUARD_OPEN(...) __VA_ARGS__

// Both of a pair of names, each passed on under its own.
#define GRAPHGUARD_PAIR(type, name, parameters, function, arguments)                              \
    extern "C" __attribute__((visibility("default"))) type nccl##name parameters noexcept {       \
        return graphguard::nccl::function(graphguard_slot_nccl##name GRAPHGUARD_OPEN arguments);  \
    }                                                                                             \
    extern "C" __attribute__((visibility("default"))) type pnccl##name parameters noexcept {      \
        return graphguard::nccl::function(graphguard_slot_pnccl##name GRAPHGUARD_OPEN arguments); \
    }

GRAPHGUARD_PAIR(Result, GroupStart, (), start_group, ())
GRAPHGUARD_PAIR(Result, GroupEnd, (), end_group, ())
GRAPHGUARD_PAIR(Result, GroupSimulateEnd, (SimulationInfo * info), simulate_group, (, info))
GRAPHGUARD_PAIR(Result, CommInitAll, (Communicator * places, int count, const int* devices),
                make_all, (, places, count, devices))
GRAPHGUARD_PAIR(Result, CommInitRank, (Communicator * place, int num_ranks, UniqueId id, int rank),
                init_rank, (, place, num_ranks, id, rank))
GRAPHGUARD_PAIR(Result, CommInitRankConfig,
                (Communicator * place, int num_ranks, UniqueId id, int rank, Config* config),
                init_rank_config, (, place, num_ranks, id, rank, config))
GRAPHGUARD_PAIR(Result, CommInitRankScalable,
                (Communicator * place, int num_ranks, int rank, int num_ids, UniqueId* ids,
                 Config* config),
                init_rank_scalable, (, place, num_ranks, rank, num_ids, ids, config))
GRAPHGUARD_PAIR(Result, CommSplit,
                (Communicator parent, int color, int key, Communicator* place, Config* config),
                split, (, parent, color, key, place, config))
GRAPHGUARD_PAIR(Result, CommShrink,
                (Communicator parent, int* excluded, int num_excluded, Communicator* place,
                 Config* config, int flags),
                shrink, (, parent, excluded, num_excluded, place, config, flags))
GRAPHGUARD_PAIR(Result, CommDestroy, (Communicator communicator), end_communicator,
                (, communicator))
GRAPHGUARD_PAIR(Result, CommAbort, (Communicator communicator), end_communicator, (, communicator))
GRAPHGUARD_PAIR(const char*, GetErrorString, (Result result), text, (, result))
GRAPHGUARD_PAIR(const char*, GetLastError, (Communicator communicator), last_error,
                (, communicator))
