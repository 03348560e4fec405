// The pulse: what a process is doing right now, for whoever maps its black box.
//
// It lies in the ring's file, in what the header leaves free. Every word is an atomic. A lane holds
// one activity that is under way and has one writer, the thread that is in it; what it says holds
// if `began` is the same before and after it is read, and not 0.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/ring_format.h"

namespace graphguard::pulse {

using Word = ring::Word;

inline constexpr std::uint64_t kMagic = 0x3145534C55504747ULL;  // "GGPULSE1" as bytes
inline constexpr std::size_t kOffset = 512;
inline constexpr std::size_t kLanes = 16;

enum class ActivityKind : std::uint8_t {
    kNone,
    kReplay,
    kEager,
    kStep,
    kOutput,
    kStartup,
    kCapture,
    kOther,
};

// Launches are told apart by their role, so that a drafter's does not hide the target's.
inline constexpr std::size_t kLaunchLanes = 8;

constexpr std::size_t lane_of(ActivityKind kind, std::uint16_t name) {
    if (kind <= ActivityKind::kEager) return name % kLaunchLanes;
    if (kind < ActivityKind::kOther) return kLaunchLanes + static_cast<std::size_t>(kind) - 3;
    return kLaunchLanes + 4 + name % (kLanes - kLaunchLanes - 4);
}
static_assert(lane_of(ActivityKind::kCapture, 0) == kLaunchLanes + 3);
static_assert(lane_of(ActivityKind::kOther, 3) == kLanes - 1);

// What the process and its watchdog say of themselves. Times are those of CLOCK_MONOTONIC.
struct Head {
    Word magic;
    Word beat_ticks;  // when the watchdog last looked, by both clocks; 0 where none runs
    Word beat_ns;
    Word stall_ns;    // how long an activity may take before it is looked at
    Word startup_ns;  // the same for the start of an engine
    Word stalls;      // how many its watchdog has told
    Word missed_ns;   // for how long, in all, the watchdog was not let run
    Word spare;
    Word extended_until_ns;
    Word extended_why;  // a name
    Word stacks;        // the signal on which stacks are written, and the name of their file << 32
    Word ended;         // activities that have ended; about, where several threads end some
    std::array<Word, 4> rest;
};
static_assert(sizeof(Head) == 128);

// A cache line, where the file is mapped.
struct Lane {
    Word began;  // in ticks; 0 while nothing is under way
    Word what;   // kind, 0, name, group: 8, 8, 16, 16 bits
    Word step;
    Word digest;
    Word batch;    // num_reqs, query_len
    Word rest;     // num_tokens, phase
    Word thread;   // as the kernel numbers it
    Word watched;  // ns that the watchdog has seen it under way
};
static_assert(sizeof(Lane) == 64);

struct Page {
    Head head;
    std::array<Lane, kLanes> lanes;
};
static_assert(kOffset % sizeof(Lane) == 0 && sizeof(Head) % sizeof(Lane) == 0);
static_assert(kOffset >= offsetof(ring::FixedPart, after_next));
static_assert(kOffset + sizeof(Page) <= ring::kHeaderBytes);

}  // namespace graphguard::pulse
