"""The vLLM plugin: target model and drafter guarded in vLLM's own workers."""
