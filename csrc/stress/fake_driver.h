// A stand-in for the CUDA driver, for machines that have none: it is found and asked as the real
// one is, through cuGetProcAddress_v2, and holds graphs that a test puts together with the calls
// below. Handles that it never gave out end the process, so that no stray pointer goes unseen.
// Not for several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>

#define FAKE_DRIVER extern "C" __attribute__((visibility("default")))

// Forgets every graph and setting.
FAKE_DRIVER void fake_reset();

// The version of CUDA that the driver is of, as 1000 * major + 10 * minor: what is newer is not
// there. Counts from the next time that the driver is loaded.
FAKE_DRIVER void fake_set_version(int version);

// Lets a function fail with an error, by its name in cuda.h without a suffix: every call whose
// number, from 1, is a multiple of `every`; 0 for none.
FAKE_DRIVER void fake_refuse(const char* function, std::uint64_t every);

// How often a function was called.
FAKE_DRIVER std::uint64_t fake_calls(const char* function);

// The capture mode that this thread is in.
FAKE_DRIVER int fake_capture_mode();

FAKE_DRIVER void fake_set_capture(void* stream, std::uint64_t id, void* graph, int status);

FAKE_DRIVER void* fake_graph();
// A kernel, as a CUfunction or a CUkernel. Without a name, the driver refuses to tell it.
FAKE_DRIVER void* fake_function(const char* name, const std::size_t* parameters,
                                std::size_t num_parameters);

FAKE_DRIVER void fake_add_kernel(void* graph, void* function, void* kernel,
                                 const unsigned int* grid, const unsigned int* block,
                                 unsigned int shared_bytes);
FAKE_DRIVER void fake_add_memcpy(void* graph, int source_type, int target_type, std::size_t width,
                                 std::size_t height, std::size_t depth);
FAKE_DRIVER void fake_add_memset(void* graph, unsigned int element_bytes, std::size_t width,
                                 std::size_t height);
FAKE_DRIVER void fake_add_host(void* graph, void (*function)(void*));
FAKE_DRIVER void fake_add_batch(void* graph, const int* operations, unsigned int count);
FAKE_DRIVER void fake_add_child(void* graph, void* child);
FAKE_DRIVER void fake_add_conditional(void* graph, int type, void* const* bodies,
                                      unsigned int num_bodies);
// A node of which only the type is known.
FAKE_DRIVER void fake_add_node(void* graph, int type);

// The node of a graph that was added as this one, from 0; null if there are fewer.
FAKE_DRIVER void* fake_node(void* graph, std::size_t place);
FAKE_DRIVER std::size_t fake_num_nodes(void* graph);
// Lets a node run after another one.
FAKE_DRIVER void fake_add_edge(void* from, void* to);
// Whether a node depends on another one, at once.
FAKE_DRIVER int fake_depends(void* node, void* on);
// Whether a node depends on any, and any on it.
FAKE_DRIVER int fake_is_leaf(void* node);

// The context of whoever asks; null for none.
FAKE_DRIVER void fake_set_context(void* context);

// Runs a graph as a device does: what was added to it by calls of the driver has its effects. A
// node that is named stands still, and so does all that depends on it.
FAKE_DRIVER void fake_run(void* graph, void* stuck);

// Returns the nodes of every graph in another order from now on.
FAKE_DRIVER void fake_shuffle(std::uint64_t seed);

// A function of this library that it exports, and one that it keeps to itself.
FAKE_DRIVER void fake_exported_callback(void* data);
FAKE_DRIVER void* fake_hidden_callback();
