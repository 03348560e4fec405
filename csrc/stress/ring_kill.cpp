// Kills a process that writes a black box, at random moments, and reads what it left.
//
//     graphguard_ring_kill SEED ROUNDS FOLDER
//
// In each round a child opens a ring in a file of its own, writes records as fast as it can and
// acknowledges each in memory that it shares with its parent. The parent ends it with SIGKILL
// within two milliseconds and reads the file: every record that was acknowledged and is not
// overwritten must be there. Prints one line of counts and ends with 0 if none was lost.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "core/mapping.h"
#include "core/ring.h"
#include "core/ring_reader.h"
#include "stress/known_records.h"
#include "stress/random_batches.h"
#include "stress/without_system_calls.h"

namespace graphguard::stress {
namespace {

constexpr std::uint32_t kMostMicroseconds = 2000;
constexpr std::array<std::uint32_t, 4> kCapacities = {8, 64, 1024, 16384};
constexpr const char* kName = "the only writer";

struct Counts {
    std::uint64_t rounds = 0;
    std::uint64_t opened = 0;   // rounds in which a record was acknowledged
    std::uint64_t records = 0;  // acknowledged
    std::uint64_t checked = 0;  // acknowledged and not overwritten
    std::uint64_t damaged = 0;
    std::uint64_t lost = 0;
    std::uint64_t wrong = 0;
    std::uint64_t without_system_calls = 0;  // records
};

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// The last record that was committed: its number and its step in one word, so that the kill cannot
// come between the two.
class Acknowledged {
  public:
    Acknowledged() {
        void* const page = mmap(nullptr, sizeof(ring::Word), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) fail("mmap");
        word_ = new (page) ring::Word(0);
    }
    ~Acknowledged() { munmap(word_, sizeof(ring::Word)); }
    Acknowledged(const Acknowledged&) = delete;
    Acknowledged& operator=(const Acknowledged&) = delete;

    void reset() { word_->store(0); }
    void store(std::uint64_t number, std::uint64_t step) {
        word_->store(number << 32U | step, std::memory_order_release);
    }
    [[nodiscard]] std::uint64_t number() const { return word_->load() >> 32U; }
    [[nodiscard]] std::uint64_t step() const { return word_->load() & 0xFFFFFFFFULL; }

  private:
    ring::Word* word_;
};

int create(const std::string& path, std::size_t bytes) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) fail("open");
    if (const int error = posix_fallocate(file, 0, static_cast<off_t>(bytes)); error != 0) {
        errno = error;
        fail("posix_fallocate");
    }
    return file;
}

std::vector<std::byte> contents_of(int file, std::size_t bytes) {
    std::vector<std::byte> data(bytes);
    if (pread(file, data.data(), bytes, 0) != static_cast<ssize_t>(bytes)) fail("pread");
    return data;
}

// The child. It ends when it is killed.
[[noreturn]] void write_until_killed(int file, std::uint32_t capacity, Acknowledged& acknowledged) {
    const Mapping mapping(file, RingWriter::bytes_for(capacity));
    RingWriter writer(mapping.memory(), {0, 1, static_cast<std::uint64_t>(getpid()), "", capacity});
    const std::uint16_t name = writer.name(kName);
    for (std::uint64_t step = 1;; ++step) {
        writer.write(known_record(name, step));
        acknowledged.store(writer.written(), step);
    }
}

void wait_until_ended(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) fail("waitpid");
    }
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        throw std::runtime_error("the child ended before it was killed");
    }
}

void run_and_kill(int file, std::uint32_t capacity, std::uint32_t microseconds,
                  Acknowledged& acknowledged) {
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(EXIT_FAILURE);
        try {
            write_until_killed(file, capacity, acknowledged);
        } catch (const std::exception& error) {
            std::cerr << error.what() << "\n";
            _exit(EXIT_FAILURE);
        }
    }
    const timespec delay{0, static_cast<long>(microseconds) * 1000};
    nanosleep(&delay, nullptr);
    kill(child, SIGKILL);
    wait_until_ended(child);
}

void judge(const RingContents& contents, const Acknowledged& acknowledged, Counts& counts) {
    counts.damaged += contents.damaged;
    const std::uint64_t last = acknowledged.number();
    if (last == 0) return;  // killed while it opened the ring: an error is as good as an empty ring
    ++counts.opened;
    counts.records += acknowledged.step();
    if (contents.names.size() != 1 || contents.names[0] != kName) ++counts.wrong;
    // Only the record that was being written when the kill came.
    if (contents.damaged > 1) ++counts.wrong;

    // What was claimed last may have destroyed the record before it in its slot, and nothing else.
    const std::uint64_t capacity = contents.identity.capacity;
    const std::uint64_t claimed = contents.written;
    std::uint64_t expected = claimed > capacity ? claimed - capacity + 1 : 1;
    std::uint64_t step = 0;
    for (const RingRecord& record : contents.records) {
        const bool clock = record.fields.event == Event::kClock;
        if (!clock && !is_known(record.fields)) ++counts.wrong;
        if (record.number < expected || record.number > last) continue;
        counts.lost += record.number - expected;
        expected = record.number + 1;
        ++counts.checked;
        if (clock) continue;
        if (step != 0 && record.fields.step != step + 1) ++counts.wrong;
        step = record.fields.step;
    }
    if (expected <= last) counts.lost += last + 1 - expected;
    if (step != acknowledged.step()) ++counts.wrong;
}

void check_system_calls(Counts& counts) {
    const std::optional<bool> none = writes_without_system_calls();
    if (!none) return;
    if (*none) {
        counts.without_system_calls += kWatchedRecords;
    } else {
        ++counts.wrong;
    }
}

void run_round(Random& random, const std::string& folder, Acknowledged& acknowledged,
               Counts& counts) {
    const std::uint32_t capacity = kCapacities[random.below(kCapacities.size())];
    const std::size_t bytes = RingWriter::bytes_for(capacity);
    const std::string path = folder + "/killed.ring";
    acknowledged.reset();
    const int file = create(path, bytes);
    unlink(path.c_str());
    run_and_kill(file, capacity, random.below(kMostMicroseconds), acknowledged);
    judge(read_ring(contents_of(file, bytes)), acknowledged, counts);
    close(file);
    ++counts.rounds;
}

int report(const Counts& counts, const std::string& seed) {
    const bool ok = counts.lost == 0 && counts.wrong == 0;
    std::cout << (ok ? "ok" : "FAILED") << " seed=" << seed << " rounds=" << counts.rounds
              << " opened=" << counts.opened << " records=" << counts.records
              << " checked=" << counts.checked << " damaged=" << counts.damaged
              << " lost=" << counts.lost << " wrong=" << counts.wrong
              << " without_system_calls=" << counts.without_system_calls << "\n";
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace graphguard::stress

int main(int argc, char** argv) {
    using namespace graphguard::stress;
    if (argc != 4) {
        std::cerr << "usage: graphguard_ring_kill SEED ROUNDS FOLDER\n";
        return EXIT_FAILURE;
    }
    Random random(std::stoull(argv[1]));
    Acknowledged acknowledged;
    Counts counts;
    check_system_calls(counts);
    for (std::uint64_t rounds = std::stoull(argv[2]); rounds > 0; --rounds) {
        run_round(random, argv[3], acknowledged, counts);
    }
    return report(counts, argv[1]);
}
