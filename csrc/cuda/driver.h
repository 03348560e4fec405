// The CUDA driver, found when it is first asked for. Without one, every question has the answer
// that it is absent, and nothing else changes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cuda/driver_types.h"

namespace graphguard::cuda {

// What a stream is being captured into.
struct CaptureInfo {
    std::uint64_t id = 0;  // unique in the process for as long as it lives; 0 where none
    Handle graph = nullptr;
    CaptureStatus status = CaptureStatus::kNone;

    [[nodiscard]] bool active() const { return status == CaptureStatus::kActive; }
};

class Driver {
  public:
    // The driver of this process. It is loaded once, by the first thread that asks, as
    // `libcuda.so.1` or as what the environment variable GRAPHGUARD_CUDA_DRIVER names (for tests).
    static const Driver& instance();

    explicit Driver(const char* library);
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;

    [[nodiscard]] bool present() const { return absence_.empty(); }

    // Why there is none; empty if there is one.
    [[nodiscard]] const std::string& absence() const { return absence_; }

    [[nodiscard]] const Functions& functions() const { return functions_; }

    // What a stream is being captured into. None if the driver does not say: it is absent, the
    // stream is no stream, or it is the legacy stream while another one is being captured.
    [[nodiscard]] std::optional<CaptureInfo> capture_of(Handle stream) const;

  private:
    Functions functions_{};
    std::string absence_;
};

// The same, of the driver of this process. Safe from any thread, while any capture runs.
[[nodiscard]] std::optional<CaptureInfo> capture_of(Handle stream);

// Lets this thread call the driver for as long as it lives, whatever other threads capture: a
// capture in global mode would be invalidated by calls that the driver deems unsafe
// (cuThreadExchangeStreamCaptureMode).
class RelaxedCaptureMode {
  public:
    explicit RelaxedCaptureMode(const Driver& driver);
    ~RelaxedCaptureMode();
    RelaxedCaptureMode(const RelaxedCaptureMode&) = delete;
    RelaxedCaptureMode& operator=(const RelaxedCaptureMode&) = delete;

  private:
    const Driver& driver_;
    CaptureMode mode_ = CaptureMode::kRelaxed;
    bool exchanged_ = false;
};

}  // namespace graphguard::cuda
