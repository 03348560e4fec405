// The functions that the interposer passes on without a look at their arguments.
//
// In assembly, for it need not know what they are: a jump leaves every argument and the way back
// as the caller has put them. Only the first call of each function looks its address up.
#include "nccl/real_library.h"
#include "nccl/slots.h"
#include "nccl/trampoline_code.h"

#define GRAPHGUARD_DEFINE_SLOT(name) \
    graphguard::nccl::Slot graphguard_slot_##name = {nullptr, #name};
#define GRAPHGUARD_DEFINE_SLOTS(name)  \
    GRAPHGUARD_DEFINE_SLOT(nccl##name) \
    GRAPHGUARD_DEFINE_SLOT(pnccl##name)
#define GRAPHGUARD_RECORDED GRAPHGUARD_DEFINE_SLOTS
#define GRAPHGUARD_FOLLOWED GRAPHGUARD_DEFINE_SLOTS
#define GRAPHGUARD_FORWARDED GRAPHGUARD_DEFINE_SLOTS
#define GRAPHGUARD_ALONE(name) GRAPHGUARD_DEFINE_SLOT(nccl##name)
extern "C" {
#include "nccl/exported_symbols.inc"
}
#undef GRAPHGUARD_RECORDED
#undef GRAPHGUARD_FOLLOWED
#undef GRAPHGUARD_FORWARDED
#undef GRAPHGUARD_ALONE

extern "C"
    __attribute__((visibility("hidden"),
                   used)) void* graphguard_resolve_slot(graphguard::nccl::Slot* slot) noexcept {
    return slot->resolve();
}

GRAPHGUARD_RESOLVING_CODE

#define GRAPHGUARD_RECORDED(name)
#define GRAPHGUARD_FOLLOWED(name)
#define GRAPHGUARD_FORWARDED(name)         \
    GRAPHGUARD_TRAMPOLINE_CODE(nccl##name) \
    GRAPHGUARD_TRAMPOLINE_CODE(pnccl##name)
#define GRAPHGUARD_ALONE(name) GRAPHGUARD_TRAMPOLINE_CODE(nccl##name)
#include "nccl/exported_symbols.inc"
