// A slot for each function in exported_symbols.inc, by the name of the function.
#pragma once

#include "nccl/real_library.h"

#define GRAPHGUARD_DECLARE_SLOT(name) \
    extern "C" __attribute__((visibility("hidden"))) graphguard::nccl::Slot graphguard_slot_##name;
#define GRAPHGUARD_DECLARE_SLOTS(name)  \
    GRAPHGUARD_DECLARE_SLOT(nccl##name) \
    GRAPHGUARD_DECLARE_SLOT(pnccl##name)
#define GRAPHGUARD_RECORDED GRAPHGUARD_DECLARE_SLOTS
#define GRAPHGUARD_FOLLOWED GRAPHGUARD_DECLARE_SLOTS
#define GRAPHGUARD_FORWARDED GRAPHGUARD_DECLARE_SLOTS
#define GRAPHGUARD_ALONE(name) GRAPHGUARD_DECLARE_SLOT(nccl##name)
#include "nccl/exported_symbols.inc"
#undef GRAPHGUARD_RECORDED
#undef GRAPHGUARD_FOLLOWED
#undef GRAPHGUARD_FORWARDED
#undef GRAPHGUARD_ALONE
