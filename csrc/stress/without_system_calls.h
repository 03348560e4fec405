// Writes records where the kernel ends whoever makes a system call.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <vector>

#include "core/ring.h"
#include "stress/known_records.h"

namespace graphguard::stress {

// More than once round, so that clock records are among them.
inline constexpr std::uint64_t kWatchedRecords = 5000;
inline constexpr int kNotOffered = 3;

// From here on the kernel ends this process at any system call but its last. A filter and not the
// strict mode, which would forbid to read the processor's counter too.
inline bool forbid_system_calls() {
    std::array<sock_filter, 4> program = {{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL),
    }};
    const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

[[noreturn]] inline void write_and_exit(RingWriter& writer) {
    const bool forbidden = forbid_system_calls();
    for (std::uint64_t step = 0; step < kWatchedRecords; ++step) {
        writer.write(known_record(0, step));
    }
    syscall(SYS_exit, forbidden ? EXIT_SUCCESS : kNotOffered);
    std::abort();
}

// Whether the records could be written; nothing where the kernel does not offer to watch.
inline std::optional<bool> writes_without_system_calls() {
    constexpr std::uint32_t kCapacity = 2048;
    std::vector<std::uint64_t> words(RingWriter::bytes_for(kCapacity) / sizeof(std::uint64_t));
    RingWriter writer(std::as_writable_bytes(std::span(words)), {0, 1, 1, "", kCapacity});
    const pid_t child = fork();
    if (child < 0) return std::nullopt;
    if (child == 0) write_and_exit(writer);
    int status = 0;
    if (waitpid(child, &status, 0) != child) return std::nullopt;
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotOffered) return std::nullopt;
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

}  // namespace graphguard::stress
