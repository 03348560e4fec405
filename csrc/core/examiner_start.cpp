#include "core/examiner_start.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <exception>

#include "core/ledger_layout.h"

namespace graphguard {

namespace {

std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    pointers.reserve(texts.size() + 1);
    for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
    pointers.push_back(nullptr);
    return pointers;
}

class Actions {
  public:
    Actions() { posix_spawn_file_actions_init(&actions_); }
    ~Actions() { posix_spawn_file_actions_destroy(&actions_); }
    Actions(const Actions&) = delete;
    Actions& operator=(const Actions&) = delete;

    // The descriptors are not copied in this process: closing a copy of a ledger's would free the
    // lock that says that this process is alive.
    void give(std::span<const int> descriptors, int first) {
        posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        for (const int descriptor : descriptors) {
            posix_spawn_file_actions_adddup2(&actions_, descriptor, first++);
        }
    }
    [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

  private:
    posix_spawn_file_actions_t actions_{};
};

class Attributes {
  public:
    Attributes() {
        posix_spawnattr_init(&attributes_);
        sigset_t signals;
        sigemptyset(&signals);
        posix_spawnattr_setsigmask(&attributes_, &signals);
        sigfillset(&signals);
        sigdelset(&signals, SIGKILL);
        sigdelset(&signals, SIGSTOP);
        posix_spawnattr_setsigdefault(&attributes_, &signals);
        // What ends the engine's group must not end what keeps the evidence. It stays in the
        // session: Linux shares the cores out by sessions first (CONFIG_SCHED_AUTOGROUP), and one
        // of its own waited 12 to 20 s for cores that the engine's session spun on (Linux 6.18,
        // docs/reliability.md).
        posix_spawnattr_setpgroup(&attributes_, 0);
        posix_spawnattr_setflags(
            &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    }
    ~Attributes() { posix_spawnattr_destroy(&attributes_); }
    Attributes(const Attributes&) = delete;
    Attributes& operator=(const Attributes&) = delete;
    [[nodiscard]] const posix_spawnattr_t* get() const { return &attributes_; }

  private:
    posix_spawnattr_t attributes_{};
};

}  // namespace

int open_locked(const std::string& path) noexcept {
    const int descriptor =
        open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (descriptor < 0) return kNoLock;
    if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
    const bool taken = errno == EWOULDBLOCK;
    close(descriptor);
    return taken ? kLockTaken : kNoLock;
}

int first_given(std::span<const int> descriptors) noexcept {
    int highest = STDERR_FILENO;
    for (const int descriptor : descriptors) highest = std::max(highest, descriptor);
    return highest + 1;
}

pid_t start_process(const std::vector<std::string>& command,
                    const std::vector<std::string>& environment, std::span<const int> descriptors,
                    int& error) noexcept {
    pid_t child = -1;
    try {
        Actions actions;
        actions.give(descriptors, first_given(descriptors));
        const Attributes attributes;
        const std::vector<char*> arguments = pointers(command);
        const std::vector<char*> variables = pointers(environment);
        error = posix_spawnp(&child, arguments[0], actions.get(), attributes.get(),
                             arguments.data(), variables.data());
    } catch (const std::exception&) {
        error = ENOMEM;
    }
    return error == 0 ? child : -1;
}

std::vector<std::uint64_t> ledger_pids(int descriptor, std::size_t bytes,
                                       std::size_t ranks) noexcept {
    struct stat status{};
    if (ranks == 0 || ranks > ledger::kMaxRanks ||
        bytes != ledger::bytes_for(static_cast<std::uint32_t>(ranks)) ||
        fstat(descriptor, &status) != 0 || static_cast<std::size_t>(status.st_size) != bytes) {
        return {};
    }
    void* const memory = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED) return {};
    std::vector<std::uint64_t> pids;
    const auto* const lines = reinterpret_cast<const ledger::RankLines*>(
        static_cast<const std::byte*>(memory) + sizeof(ledger::Shared));
    try {
        for (std::size_t place = 0; place < ranks; ++place) {
            pids.push_back(lines[place].pid.load(std::memory_order_relaxed) & ~ledger::kLeft);
        }
    } catch (const std::exception&) {
        pids.clear();
    }
    munmap(memory, bytes);
    return pids;
}

}  // namespace graphguard
