// Starting the examiner: a process of its own, which outlives what it examines.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace graphguard {

// Opens and locks a file without waiting, and without following a link: the descriptor, -1 if
// somebody else has the lock, or -2 if the file cannot be opened.
[[nodiscard]] int open_locked(const std::string& path) noexcept;
inline constexpr int kLockTaken = -1;
inline constexpr int kNoLock = -2;

// The number that the first of these descriptors has in a process that is started with them; the
// others follow. It is above all of theirs, so that giving one does not close another.
[[nodiscard]] int first_given(std::span<const int> descriptors) noexcept;

// Starts a program in a session of its own, with nothing on its standard input, every signal as at
// the start of a program, and the descriptors from first_given() on. Returns its id, or -1 with
// `error` set.
[[nodiscard]] pid_t start_process(const std::vector<std::string>& command,
                                  const std::vector<std::string>& environment,
                                  std::span<const int> descriptors, int& error) noexcept;

// The ids of processes in a ledger, by place; 0 for those that have not joined. Empty if the
// memory behind the descriptor is no ledger of that size.
[[nodiscard]] std::vector<std::uint64_t> ledger_pids(int descriptor, std::size_t bytes,
                                                     std::size_t ranks) noexcept;

}  // namespace graphguard
