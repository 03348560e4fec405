// The black box as Python sees it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "core/clock.h"
#include "core/mapping.h"
#include "core/pulse.h"
#include "core/ring.h"
#include "core/ring_reader.h"

namespace graphguard {

namespace nb = nanobind;

// Several of these may write one ring. Each remembers its own check, so that what one guard marks
// does not get the context of another.
class BoundRing {
  public:
    BoundRing(int descriptor, std::size_t bytes, std::uint32_t rank, std::uint32_t world_size,
              std::uint64_t pid, std::string host, std::uint32_t capacity)
        : ring_(std::make_shared<MappedRing>(
              descriptor, bytes, RingIdentity{rank, world_size, pid, std::move(host), capacity})) {}

    [[nodiscard]] BoundRing another() const { return BoundRing(ring_); }

    [[nodiscard]] RingWriter& writer() { return ring_->writer; }
    // The ring, for who must not outlive its memory.
    [[nodiscard]] std::shared_ptr<RingWriter> shared_writer() const {
        return {ring_, &ring_->writer};
    }

    std::uint16_t name(std::string_view text) { return ring_->writer.name(text); }

    void record(std::uint8_t event, std::uint16_t role, std::uint16_t group, std::uint64_t step,
                std::uint64_t digest, std::uint32_t num_reqs, std::uint32_t query_len,
                std::uint32_t num_tokens, std::uint8_t phase, std::uint8_t action,
                std::uint8_t reason, std::uint16_t peer, std::uint16_t flags,
                std::uint32_t detail) {
        ring_->writer.write({step, digest, num_reqs, query_len, num_tokens, role, group,
                             static_cast<Event>(event), action, reason, phase, peer, flags,
                             detail});
    }

    void check(std::uint16_t role, std::uint16_t group, std::uint64_t step, std::uint64_t digest,
               std::uint32_t num_reqs, std::uint32_t query_len, std::uint32_t num_tokens,
               std::uint8_t phase, std::uint8_t action, std::uint8_t reason, std::uint16_t flags) {
        context_ = {step,          digest, num_reqs, query_len, num_tokens, role,  group,
                    Event::kCheck, action, reason,   phase,     kNoPeer,    flags, 0};
        ring_->writer.write(context_);
    }

    // Another launch takes the place of the checked one: what is marked from now on is that.
    void replace(std::uint64_t digest, std::uint32_t num_reqs, std::uint32_t query_len,
                 std::uint32_t num_tokens, std::uint8_t phase, std::uint8_t action,
                 std::uint8_t reason, std::uint16_t flags) {
        context_ = {context_.step, digest,         num_reqs,       query_len, num_tokens,
                    context_.role, context_.group, context_.event, action,    reason,
                    phase,         kNoPeer,        flags,          0};
    }

    void mark(std::uint8_t event) {
        context_.event = static_cast<Event>(event);
        ring_->writer.write(context_);
    }

    void begin_activity(std::uint8_t kind, std::uint16_t name, std::uint64_t step) {
        ring_->writer.begin_activity(activity_kind(kind), name, step);
    }

    void end_activity(std::uint8_t kind, std::uint16_t name) {
        ring_->writer.end_activity(activity_kind(kind), name);
    }

    void extend(double seconds, std::uint16_t why) {
        if (!(seconds >= 0 && seconds <= kLongestExtension)) {
            throw std::invalid_argument("an extension is of 0 to 86,400 seconds");
        }
        if (ring_->writer.disowned()) return;
        const auto nanoseconds = static_cast<std::uint64_t>(seconds * 1e9);
        ring_->writer.pulse().extend(nanoseconds_of(CLOCK_MONOTONIC) + nanoseconds, why);
    }

    void set_stacks(std::uint32_t signal, std::uint16_t file) {
        if (!ring_->writer.disowned()) ring_->writer.pulse().set_stacks(signal, file);
    }

    [[nodiscard]] std::uint64_t written() const { return ring_->writer.written(); }

    void disown() { ring_->writer.disown(); }

  private:
    struct MappedRing {
        MappedRing(int descriptor, std::size_t bytes, const RingIdentity& identity)
            : mapping(descriptor, bytes), writer(mapping.memory(), identity) {}
        Mapping mapping;
        RingWriter writer;
    };

    static constexpr double kLongestExtension = 86'400;

    explicit BoundRing(std::shared_ptr<MappedRing> ring) : ring_(std::move(ring)) {}

    // Launches are left out: their records begin and end them.
    static ActivityKind activity_kind(std::uint8_t kind) {
        const auto given = static_cast<ActivityKind>(kind);
        if (given < ActivityKind::kStep || given > ActivityKind::kOther) {
            throw std::invalid_argument("no such kind of activity");
        }
        return given;
    }

    std::shared_ptr<MappedRing> ring_;
    RecordFields context_;
};

// The bytes of any object that lends them: bytes, a memory map, a memory view.
class LentBytes {
  public:
    explicit LentBytes(nb::handle lender) {
        if (PyObject_GetBuffer(lender.ptr(), &view_, PyBUF_SIMPLE) != 0) nb::raise_python_error();
    }
    ~LentBytes() { PyBuffer_Release(&view_); }
    LentBytes(const LentBytes&) = delete;
    LentBytes& operator=(const LentBytes&) = delete;

    [[nodiscard]] std::span<const std::byte> span() const {
        return {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
    }

  private:
    Py_buffer view_{};
};

// Text from a file may be anything.
inline nb::object text_of(std::string_view text) {
    PyObject* const decoded =
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    if (decoded == nullptr) nb::raise_python_error();
    return nb::steal(decoded);
}

inline nb::tuple record_tuple(const RingRecord& record) {
    const RecordFields& fields = record.fields;
    return nb::make_tuple(record.number, record.time_ns, fields.step, fields.digest,
                          fields.num_reqs, fields.query_len, fields.num_tokens, fields.role,
                          fields.group, static_cast<std::uint8_t>(fields.event), fields.action,
                          fields.reason, fields.phase, fields.peer, fields.flags, fields.detail);
}

inline nb::tuple read_ring_object(nb::handle data) {
    const RingContents contents = read_ring(LentBytes(data).span());
    const RingIdentity& identity = contents.identity;
    nb::list names;
    for (const auto& name : contents.names) names.append(name ? text_of(*name) : nb::none());
    nb::list records;
    for (const RingRecord& record : contents.records) records.append(record_tuple(record));
    return nb::make_tuple(
        contents.error,
        nb::make_tuple(identity.rank, identity.world_size, identity.pid, text_of(identity.host),
                       identity.capacity, contents.started_ns, contents.written),
        names, records, contents.damaged);
}

inline nb::tuple activity_tuple(const ActivityRead& read) {
    return nb::make_tuple(static_cast<std::uint8_t>(read.kind), read.name, read.group, read.step,
                          read.digest, read.num_reqs, read.query_len, read.num_tokens, read.phase,
                          read.thread, read.age_ns, read.watched_ns);
}

// The pulse in two copies of the beginning of a ring, and the names that are there.
inline nb::object read_pulse_object(nb::handle copy, nb::handle copy_after, bool live) {
    std::optional<ClockSample> now;
    if (live) now = sample_clocks(TickClock());
    const LentBytes bytes(copy);
    const LentBytes bytes_after(copy_after);
    const PulseRead read = read_pulse(bytes.span(), bytes_after.span(), now);
    if (!read.there) return nb::none();
    nb::list activities;
    for (const ActivityRead& activity : read.activities) {
        activities.append(activity_tuple(activity));
    }
    nb::list names;
    for (const auto& name : read_ring_names(bytes.span())) {
        names.append(name ? text_of(*name) : nb::none());
    }
    return nb::make_tuple(
        activities, names,
        nb::make_tuple(read.beats ? nb::object(nb::int_(read.beat_age_ns)) : nb::none(),
                       read.stall_ns, read.startup_ns, read.stalls, read.missed_ns,
                       read.extended_ns, read.extended_why, read.stack_signal, read.stacks_file,
                       read.ended));
}

inline std::size_t ring_bytes(std::uint32_t capacity) {
    if (!ring::possible_capacity(capacity)) {
        throw std::invalid_argument("a ring holds a power of two of records, at most 2^24");
    }
    return RingWriter::bytes_for(capacity);
}

// The black box's part of the module.
inline void bind_ring(nb::module_& m) {
    m.def("ring_bytes", &ring_bytes);
    m.def("read_ring", &read_ring_object);
    m.def("read_pulse", &read_pulse_object);
    m.attr("PULSE_BYTES") = sizeof(ring::FixedPart);

    // Arguments carry no names, as in the table: these calls are on the replay path.
    nb::class_<BoundRing>(m, "BlackBox")
        .def(nb::init<int, std::size_t, std::uint32_t, std::uint32_t, std::uint64_t, std::string,
                      std::uint32_t>())
        .def("another", &BoundRing::another)
        .def("name", &BoundRing::name)
        .def("record", &BoundRing::record)
        .def("check", &BoundRing::check)
        .def("replace", &BoundRing::replace)
        .def("mark", &BoundRing::mark)
        .def("begin_activity", &BoundRing::begin_activity)
        .def("end_activity", &BoundRing::end_activity)
        .def("extend", &BoundRing::extend)
        .def("set_stacks", &BoundRing::set_stacks)
        .def_prop_ro("written", &BoundRing::written)
        .def("disown", &BoundRing::disown);
}

}  // namespace graphguard
