// Several threads write one ring while another reads it, under ThreadSanitizer.
//
//     graphguard_ring_stress WRITERS RECORDS ROUNDS
//
// Prints one line of counts and ends with 0 if every record that was read is one that was written,
// nothing was lost where nothing was overwritten, and no write allocated.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/ring.h"
#include "core/ring_reader.h"
#include "stress/counted_allocations.h"
#include "stress/known_records.h"

namespace graphguard::stress {
namespace {

// So small that writers overtake each other in a slot.
constexpr std::uint32_t kTight = 16;

struct Settings {
    std::uint16_t writers = 0;
    std::uint64_t records = 0;  // of one writer
};

struct Counts {
    std::uint64_t rounds = 0;
    std::uint64_t written = 0;
    std::uint64_t readings = 0;
    std::uint64_t records_read = 0;
    std::uint64_t damaged_read = 0;
    std::uint64_t names_read = 0;
    std::atomic<std::uint64_t> allocations{0};
    std::uint64_t failures = 0;
};

std::string name_of(std::uint16_t writer) {
    return "writer " + std::to_string(writer) + std::string(writer % 3 * 60, '.');
}

// A ring that holds everything that is written to it, clock records included.
std::uint32_t roomy(const Settings& settings) {
    return std::bit_ceil(static_cast<std::uint32_t>(settings.writers * settings.records * 2));
}

class Round {
  public:
    Round(const Settings& settings, std::uint32_t capacity, Counts& counts)
        : settings_(settings),
          counts_(counts),
          words_(RingWriter::bytes_for(capacity) / sizeof(std::uint64_t)),
          writer_(std::as_writable_bytes(std::span(words_)), {0, 1, 1, "host", capacity}) {}

    void run() {
        std::atomic<std::uint32_t> running = settings_.writers;
        std::vector<std::thread> threads;
        for (std::uint16_t i = 0; i < settings_.writers; ++i) {
            threads.emplace_back([this, i, &running] {
                write(i);
                running.fetch_sub(1);
            });
        }
        while (running.load() > 0) judge(read());
        for (std::thread& thread : threads) thread.join();
        const RingContents contents = read();
        judge(contents);
        if (contents.identity.capacity != kTight) judge_whole(contents);
        ++counts_.rounds;
        counts_.written += contents.written;
    }

  private:
    void write(std::uint16_t writer) {
        const std::uint16_t named = writer_.name(name_of(writer));
        if (named >= settings_.writers || writer_.name(name_of(writer)) != named) std::abort();
        const std::uint64_t before = allocations;
        for (std::uint64_t step = 1; step <= settings_.records; ++step) {
            writer_.write(known_record(writer, step));
        }
        counts_.allocations += allocations - before;
    }

    [[nodiscard]] RingContents read() const { return read_ring(std::as_bytes(std::span(words_))); }

    // What holds at any time.
    void judge(const RingContents& contents) {
        ++counts_.readings;
        counts_.damaged_read += contents.damaged;
        if (!contents.error.empty()) ++counts_.failures;
        std::uint64_t last = 0;
        for (const RingRecord& record : contents.records) {
            if (record.number <= last) ++counts_.failures;
            last = record.number;
            if (record.fields.event == Event::kClock) continue;
            ++counts_.records_read;
            if (!is_known(record.fields)) ++counts_.failures;
        }
        for (const std::optional<std::string>& name : contents.names) {
            if (!name) continue;
            ++counts_.names_read;
            if (!written_name(*name)) ++counts_.failures;
        }
    }

    [[nodiscard]] bool written_name(std::string_view name) const {
        for (std::uint16_t i = 0; i < settings_.writers; ++i) {
            const std::string whole = name_of(i);
            const bool is_cut = whole.size() > ring::kNameBytes;
            const std::string kept =
                is_cut ? whole.substr(0, ring::kNameBytes - 3) + "\u2026" : whole;
            if (name == kept) return true;
        }
        return false;
    }

    // What holds when all have ended and nothing was overwritten: every writer's records are there,
    // in the order in which it wrote them.
    void judge_whole(const RingContents& contents) {
        std::vector<std::uint64_t> last(settings_.writers);
        for (const RingRecord& record : contents.records) {
            if (record.fields.event == Event::kClock) continue;
            if (record.fields.step != ++last.at(record.fields.role)) ++counts_.failures;
        }
        for (const std::uint64_t each : last) {
            if (each != settings_.records) ++counts_.failures;
        }
        if (contents.damaged != 0) ++counts_.failures;
        if (contents.records.size() != contents.written) ++counts_.failures;
        if (contents.names.size() != settings_.writers) ++counts_.failures;
    }

    Settings settings_;
    Counts& counts_;
    std::vector<std::uint64_t> words_;
    RingWriter writer_;
};

int report(const Counts& counts) {
    const bool ok = counts.failures == 0 && counts.allocations == 0;
    std::cout << (ok ? "ok" : "FAILED") << " rounds=" << counts.rounds
              << " written=" << counts.written << " readings=" << counts.readings
              << " records_read=" << counts.records_read << " damaged_read=" << counts.damaged_read
              << " names_read=" << counts.names_read << " allocations=" << counts.allocations
              << " failures=" << counts.failures << "\n";
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace graphguard::stress

int main(int argc, char** argv) {
    using namespace graphguard::stress;
    if (argc != 4) {
        std::cerr << "usage: graphguard_ring_stress WRITERS RECORDS ROUNDS\n";
        return EXIT_FAILURE;
    }
    const Settings settings{static_cast<std::uint16_t>(std::stoul(argv[1])), std::stoull(argv[2])};
    Counts counts;
    for (std::uint64_t rounds = std::stoull(argv[3]); rounds > 0; --rounds) {
        Round(settings, kTight, counts).run();
        Round(settings, roomy(settings), counts).run();
    }
    return report(counts);
}
