// A trampoline, and what it does when it is first called, for the processors that NCCL is built
// for. Registers that may carry an argument are kept while the address is looked up.
#pragma once

#define GRAPHGUARD_FUNCTION_CODE(name, visibility, code)                                           \
    asm(".pushsection .text\n.p2align 4\n.globl " #name "\n" visibility ".type " #name             \
        ", %function\n" #name ":\n.cfi_startproc\n" code ".cfi_endproc\n.size " #name ", .-" #name \
        "\n.popsection\n");

#if defined(__x86_64__)

// 6 pushes and 136 bytes of room: the stack is at a multiple of 16 again, as a call wants it.
#define GRAPHGUARD_RESOLVING_CODE                                                                  \
    GRAPHGUARD_FUNCTION_CODE(graphguard_resolve_and_jump, ".hidden graphguard_resolve_and_jump\n", \
                             "push %rdi\npush %rsi\npush %rdx\npush %rcx\npush %r8\n"              \
                             "push %r9\n.cfi_adjust_cfa_offset 48\n"                               \
                             "sub $136, %rsp\n.cfi_adjust_cfa_offset 136\n"                        \
                             "movups %xmm0, 0(%rsp)\nmovups %xmm1, 16(%rsp)\n"                     \
                             "movups %xmm2, 32(%rsp)\nmovups %xmm3, 48(%rsp)\n"                    \
                             "movups %xmm4, 64(%rsp)\nmovups %xmm5, 80(%rsp)\n"                    \
                             "movups %xmm6, 96(%rsp)\nmovups %xmm7, 112(%rsp)\n"                   \
                             "mov %rax, 128(%rsp)\n"                                               \
                             "mov %r11, %rdi\ncall graphguard_resolve_slot\n"                      \
                             "mov %rax, %r11\nmov 128(%rsp), %rax\n"                               \
                             "movups 0(%rsp), %xmm0\nmovups 16(%rsp), %xmm1\n"                     \
                             "movups 32(%rsp), %xmm2\nmovups 48(%rsp), %xmm3\n"                    \
                             "movups 64(%rsp), %xmm4\nmovups 80(%rsp), %xmm5\n"                    \
                             "movups 96(%rsp), %xmm6\nmovups 112(%rsp), %xmm7\n"                   \
                             "add $136, %rsp\n.cfi_adjust_cfa_offset -136\n"                       \
                             "pop %r9\npop %r8\npop %rcx\npop %rdx\npop %rsi\npop %rdi\n"          \
                             ".cfi_adjust_cfa_offset -48\njmp *%r11\n")

#define GRAPHGUARD_TRAMPOLINE_CODE(name)                           \
    GRAPHGUARD_FUNCTION_CODE(name, "",                             \
                             "endbr64\nmov graphguard_slot_" #name \
                             "(%rip), %r11\n"                      \
                             "test %r11, %r11\njz 1f\njmp *%r11\n" \
                             "1: lea graphguard_slot_" #name       \
                             "(%rip), %r11\n"                      \
                             "jmp graphguard_resolve_and_jump\n")

#elif defined(__aarch64__)

#define GRAPHGUARD_RESOLVING_CODE                                                                  \
    GRAPHGUARD_FUNCTION_CODE(graphguard_resolve_and_jump, ".hidden graphguard_resolve_and_jump\n", \
                             "stp x29, x30, [sp, #-224]!\n.cfi_adjust_cfa_offset 224\n"            \
                             ".cfi_rel_offset x29, 0\n.cfi_rel_offset x30, 8\n"                    \
                             "stp x0, x1, [sp, #16]\nstp x2, x3, [sp, #32]\n"                      \
                             "stp x4, x5, [sp, #48]\nstp x6, x7, [sp, #64]\n"                      \
                             "str x8, [sp, #80]\n"                                                 \
                             "stp q0, q1, [sp, #96]\nstp q2, q3, [sp, #128]\n"                     \
                             "stp q4, q5, [sp, #160]\nstp q6, q7, [sp, #192]\n"                    \
                             "mov x0, x17\nbl graphguard_resolve_slot\nmov x16, x0\n"              \
                             "ldp x0, x1, [sp, #16]\nldp x2, x3, [sp, #32]\n"                      \
                             "ldp x4, x5, [sp, #48]\nldp x6, x7, [sp, #64]\n"                      \
                             "ldr x8, [sp, #80]\n"                                                 \
                             "ldp q0, q1, [sp, #96]\nldp q2, q3, [sp, #128]\n"                     \
                             "ldp q4, q5, [sp, #160]\nldp q6, q7, [sp, #192]\n"                    \
                             "ldp x29, x30, [sp], #224\n.cfi_adjust_cfa_offset -224\n"             \
                             "br x16\n")

#define GRAPHGUARD_TRAMPOLINE_CODE(name)                                  \
    GRAPHGUARD_FUNCTION_CODE(name, "",                                    \
                             "hint #34\nadrp x17, graphguard_slot_" #name \
                             "\n"                                         \
                             "add x17, x17, :lo12:graphguard_slot_" #name \
                             "\n"                                         \
                             "ldar x16, [x17]\ncbz x16, 1f\nbr x16\n"     \
                             "1: b graphguard_resolve_and_jump\n")

#else
#error "NCCL is built for x86-64 and for aarch64"
#endif
