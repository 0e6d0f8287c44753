// vcpu_policy.h: the plugin interface of vcpu-scheduler, version 1.
//
// A policy decides which CPUs of a host the vCPUs of its guests run on. This header is all that a policy in C or C++
// needs: build a shared object that exports the one function at the end of this comment, and hand it to the
// scheduler. docs/plugins.md is the book, examples/headroom.c a policy to start from.
//
//     const struct vcpu_policy_library *vcpu_policy_library_v1(void);
//
// Compile with:  cc -std=c11 -O2 -fPIC -shared -I DIRECTORY-OF-THIS-HEADER -o NAME.so NAME.c
//
// The rules:
//
// - Threads. create may be called on any thread, also for two instances at once. The calls that get one instance come
//   one at a time, though not always on the same thread; two instances may be in calls at the same time, so what they
//   share (static variables) has to bear that. Callbacks are for the thread that is in a call from the host, until that
//   call returns.
// - Lifetimes. A pointer that a call hands over is valid until that call returns; only the host table, which create
//   gets, is valid until destroy returns. The library's own tables must stay for good: a library is never unloaded.
// - Ownership. Nothing changes hands. What a callback is given is copied before it returns. Each side frees what it
//   allocated.
// - Purity. The same instance with the same history decides the same on the same snapshot. No clock, no files, no
//   randomness but the seed of the snapshot, no threads of its own.
// - Trust. A plan is checked before it is carried out: what it asks for that may not be is refused, one by one.
// - Growth. Within version 1, structs and rows grow at their ends only. A struct begins with its own size, as its
//   writer was compiled; the rows of a snapshot lie at the stride that the table states. So go from row to row with
//   the functions below, never with [] or ++, and set the size field of your own structs with sizeof. Fields that
//   a later version of this header adds are to be read only where VCPU_ROW_HAS or the size says that they are there.
//   Bits and reserved fields that are zero today may come to mean something: test the bits that you know, never a
//   whole flags field, and write zero where a field of yours is reserved.
// - Unknown. A reference from row to row is stored as row + 1, so that 0 is "unknown". A measure that is unknown is
//   NaN. Ask with vcpu_row and vcpu_is_known.
//
// - Machines. All of this is for 64-bit machines, in the machine's own byte order.
//
// The snapshot was checked before it got here: every reference that is not 0 has its row, every text and every set
// lies in the block; there is a CPU, and CPUs are in the order of their kernel's numbers; the vCPUs of a domain lie side
// by side, those of the first domain first; a measure is NaN or finite, and not negative.
//
// This file is generated from the Rust sources and from include/source; the test tests/header.rs makes it and
// compares.

#ifndef VCPU_POLICY_H
#define VCPU_POLICY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
#define VCPU_ASSERT(condition) static_assert(condition, #condition)
extern "C" {
#else
#define VCPU_ASSERT(condition) _Static_assert(condition, #condition)
#endif

// The budget of a snapshot whose plans are not limited.
#define VCPU_NO_LIMIT UINT32_MAX

// How many slots there are, for good: a vCPU's is below. Policies keep lists as long as the largest slot.
#define VCPU_MAX_SLOTS 1048576

// Header: the policy's state was lost, or there never was one.
#define VCPU_SNAPSHOT_FRESH 1

// CPU: counts for the balance and may be pinned to. Domain: may be touched.
#define VCPU_MANAGED 1

// vCPU: may be pinned in this tick.
#define VCPU_MOVABLE 1

// The version of the interface: what differs in it cannot work together. It is part of the entry point's name.
#define VCPU_ABI_MAJOR 1

// What the magic field of a library's table holds: "VCPUPLUG" in ASCII, the first letter in the lowest byte.
#define VCPU_LIBRARY_MAGIC 5140098457625707350

// Returned by a call that did what it was asked.
#define VCPU_OK 0

// Returned by a call that failed; it has said why through the host's fail callback. The policy can be used on.
#define VCPU_ERROR -1

// Returned by a call that failed and left the policy in a state of no use: it will be destroyed and made anew.
#define VCPU_ERROR_LOST -2

// Returned by a call that was handed a null pointer or a length out of bounds.
#define VCPU_ERROR_ARGUMENT -3

// Returned by a callback that cannot take more of the same.
#define VCPU_ERROR_FULL -4

// Log level: the policy cannot do its job.
#define VCPU_LOG_ERROR 1

// Log level: the operator should look.
#define VCPU_LOG_WARN 2

// Log level: something changed.
#define VCPU_LOG_INFO 3

// Log level: once a tick.
#define VCPU_LOG_DEBUG 4

// Log level: many times a tick.
#define VCPU_LOG_TRACE 5

// The longest name and version of a policy, in bytes.
#define VCPU_MAX_NAME 64

// The longest summary, reason, note, error and log line, in bytes; what is longer is cut off.
#define VCPU_MAX_LINE 1024

// The longest text of a policy's default options, in bytes.
#define VCPU_MAX_DEFAULTS 65536

// The most policies in one library.
#define VCPU_MAX_POLICIES 64

// The most 64-bit words of a CPU set in a pin.
#define VCPU_MAX_SET_WORDS 1024

// The most notes in a plan.
#define VCPU_MAX_NOTES 256

// Where a table lies.
struct vcpu_table {
    // Bytes from the start of the header to the first row; a multiple of 8.
    uint64_t offset;
    // How many rows there are.
    uint32_t count;
    // Bytes from one row to the next.
    uint32_t stride;
};

// A piece of the text arena.
struct vcpu_text_ref {
    // Bytes from the start of the arena.
    uint32_t offset;
    // Length in bytes.
    uint32_t length;
};

// What the snapshot begins with.
struct vcpu_snapshot {
    // "VCPUSNAP" in ASCII.
    uint8_t magic[8];
    // The size of this header in bytes, as its writer knew it.
    uint32_t size;
    // VCPU_SNAPSHOT_FRESH; other bits are for later versions.
    uint32_t flags;
    // The size of the whole block in bytes.
    uint64_t total_size;
    // The number of this tick; the first one is 1.
    uint64_t tick;
    // Monotonic time of the sample, in nanoseconds since an arbitrary origin.
    uint64_t now_ns;
    // The interval that the measures cover, in nanoseconds.
    uint64_t interval_ns;
    // The only randomness that a policy may use.
    uint64_t seed;
    // How many pins will be carried out at most; VCPU_NO_LIMIT where there is no limit.
    uint32_t budget;
    // How many 64-bit words each CPU set has: as many as the rows of CPUs take. No more than a pin may have.
    uint32_t set_words;
    // Rows of struct vcpu_cpu_row.
    struct vcpu_table cpus;
    // Rows of struct vcpu_core_row.
    struct vcpu_table cores;
    // Rows of struct vcpu_llc_row.
    struct vcpu_table llcs;
    // Rows of struct vcpu_node_row.
    struct vcpu_table nodes;
    // Distances, 32 bits each: from each node, in order, to each node; `count` is the number of distances.
    struct vcpu_table distances;
    // Rows of struct vcpu_domain_row.
    struct vcpu_table domains;
    // Rows of struct vcpu_vcpu_row, those of a domain side by side and in the order of their numbers.
    struct vcpu_table vcpus;
    // CPU sets of `set_words` words each; `count` is the number of sets.
    struct vcpu_table sets;
    // UTF-8 text; `count` is the number of bytes.
    struct vcpu_table text;
};

// An online pCPU.
struct vcpu_cpu_row {
    // The kernel's number.
    uint32_t os_id;
    // VCPU_MANAGED; other bits are for later versions.
    uint32_t flags;
    // Core, index + 1.
    uint32_t core;
    // Last-level cache, index + 1.
    uint32_t llc;
    // NUMA node, index + 1.
    uint32_t node;
    // Zero.
    uint32_t reserved;
    // What the CPU delivers at most, percent of a nominal pCPU.
    double capacity;
    // Load of everything that is not a vCPU, percent of a pCPU; NaN if unknown.
    double background;
};

// SMT siblings.
struct vcpu_core_row {
    // Last-level cache, index + 1.
    uint32_t llc;
    // NUMA node, index + 1.
    uint32_t node;
    // Set of its CPUs, index + 1.
    uint32_t cpus;
    // Zero.
    uint32_t reserved;
};

// CPUs of a node that share a last-level cache.
struct vcpu_llc_row {
    // NUMA node, index + 1.
    uint32_t node;
    // Set of its CPUs, index + 1.
    uint32_t cpus;
};

// A NUMA node.
struct vcpu_node_row {
    // The kernel's number.
    uint32_t os_id;
    // Set of its CPUs, index + 1.
    uint32_t cpus;
};

// A libvirt guest.
struct vcpu_domain_row {
    // libvirt's UUID, as its 16 bytes in text order.
    uint8_t uuid[16];
    // libvirt's name.
    struct vcpu_text_ref name;
    // Its first row in the table of vCPUs (an index, not index + 1: it is never unknown).
    uint32_t first_vcpu;
    // How many rows it has there.
    uint32_t vcpu_count;
    // VCPU_MANAGED; other bits are for later versions.
    uint32_t flags;
    // Node of its memory, index + 1.
    uint32_t memory_node;
    // Its CPU shares relative to other domains; NaN if unknown.
    double weight;
};

// A vCPU.
struct vcpu_vcpu_row {
    // Domain, index + 1.
    uint32_t domain;
    // The vCPU's number in its domain.
    uint32_t number;
    // The pCPU that its load counts on, index + 1.
    uint32_t cpu;
    // The set of CPUs it may run on now, index + 1.
    uint32_t affinity;
    // The set of CPUs it may be pinned to, index + 1.
    uint32_t allowed;
    // VCPU_MOVABLE; other bits are for later versions.
    uint32_t flags;
    // A dense number below VCPU_MAX_SLOTS that stays the vCPU's own for its lifetime. It is given to another vCPU, if ever,
    // only after a tick in which nobody had it: compare `born`.
    uint32_t slot;
    // Zero.
    uint32_t reserved;
    // The tick at which it was first seen.
    uint64_t born;
    // What it ran, percent of one pCPU over the interval; NaN if unknown.
    double load;
    // How long it was runnable but did not run, percent of the interval; NaN if unknown.
    double wait;
};

// A piece of UTF-8 text. No zero byte ends it. Where the length is 0 the pointer is not looked at.
struct vcpu_text {
    // The first byte.
    const char *bytes;
    // The length in bytes.
    uint64_t length;
};

// What the host offers an instance for as long as it lives.
struct vcpu_host {
    // The size of this struct in bytes, as the host was compiled.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // To be handed back in each call.
    void *context;
    // Writes a line into the host's log. The text is copied.
    void (*log)(void *context, int32_t level, struct vcpu_text line);
    // Says why the call that is being made will fail, in one line for the operator; of several, the last one holds.
    // The text is copied.
    void (*fail)(void *context, struct vcpu_text reason);
    // Looks up an extension of the host by its name; null if it does not have it.
    const void *(*extension)(void *context, struct vcpu_text id);
};

// The options of an instance: all that the policy has, those that the operator did not set with their defaults.
struct vcpu_options {
    // The size of this struct in bytes, as the host was compiled.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // A YAML mapping; empty if the policy has no options.
    struct vcpu_text yaml;
    // The same as "key=value" lines. A value within another one has its path as its key ("limits.high", "cpus.0"). In
    // a value, a backslash stands as two of them and a line break as a backslash and an n.
    struct vcpu_text flat;
};

// What an instance fills in the course of a decision.
struct vcpu_plan {
    // The size of this struct in bytes, as the host was compiled.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // To be handed back in each call.
    void *context;
    // Adds a pin: the vCPU in this row (not row + 1) shall run on the CPUs whose rows are the one bits of the words,
    // the least significant bit of the first word first. The reason is for the operator. The gain says by how much
    // the policy expects its own objective to fall. Words and reason are copied.
    int32_t (*pin)(void *context,
                   uint32_t vcpu,
                   const uint64_t *words,
                   uint32_t word_count,
                   struct vcpu_text reason,
                   double gain);
    // Says something about the decision as a whole: above all why nothing, or nothing more, moves. The text is copied.
    int32_t (*note)(void *context, struct vcpu_text text);
};

// A policy of a library.
//
// Threads: create may be called on any thread, and for several instances at once. The calls that get one instance come
// one at a time, but not always on the same thread; those of two instances may come at the same time. A callback may
// be called only by the thread that is in a call from the host, and only until that call returns.
struct vcpu_policy {
    // The size of this struct in bytes, as the library was compiled.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // What the operator writes to choose the policy: lower-case letters, digits and dashes, first a letter.
    struct vcpu_text name;
    // The version of the policy's behaviour, major.minor.patch.
    struct vcpu_text version;
    // One sentence for the operator: what this policy does to guests.
    struct vcpu_text summary;
    // The options with their defaults, as a YAML mapping; empty if there are none. The host refuses a key that is not
    // in it, and completes what the operator left out. Only its own keys: a value that is a mapping or a list is
    // replaced as a whole, whatever is in it.
    struct vcpu_text defaults;
    // Makes an instance and stores a pointer to it, which may be null if there is nothing to remember: decide and
    // destroy then get a null pointer. The host table stays valid until destroy returns; the options are valid until
    // this call returns.
    int32_t (*create)(const struct vcpu_host *host, const struct vcpu_options *options, void **policy);
    // Decides one tick: adds pins and notes to the plan, which is empty. The snapshot and the plan are valid until
    // this call returns. The same instance with the same history and the same snapshot decides the same: no clock,
    // no randomness but the snapshot's seed.
    int32_t (*decide)(void *policy,
                      const struct vcpu_snapshot *snapshot,
                      uint64_t snapshot_size,
                      const struct vcpu_plan *plan);
    // Ends an instance; called once, and after it nothing else. Called also after a call that failed, but not if
    // create did.
    void (*destroy)(void *policy);
    // Looks up an extension of the policy by its name; null if it does not have it. May itself be null.
    const void *(*extension)(struct vcpu_text id);
};

// What a library returns from its one exported function. It and everything it points to stays as it is for as long
// as the process lives: a library is never unloaded.
struct vcpu_policy_library {
    // The size of this struct in bytes, as the library was compiled.
    uint32_t size;
    // The version of the interface that the library was compiled for.
    uint32_t major;
    // The number by which the table is known for one.
    uint64_t magic;
    // How many policies the library has; at least one.
    uint32_t policy_count;
    // Zero.
    uint32_t reserved;
    // That many pointers, none of them null.
    const struct vcpu_policy *const *policies;
};

// What both sides have to agree on to the byte.
VCPU_ASSERT(sizeof(struct vcpu_table) == 16);
VCPU_ASSERT(offsetof(struct vcpu_table, offset) == 0);
VCPU_ASSERT(offsetof(struct vcpu_table, count) == 8);
VCPU_ASSERT(offsetof(struct vcpu_table, stride) == 12);
VCPU_ASSERT(sizeof(struct vcpu_text_ref) == 8);
VCPU_ASSERT(offsetof(struct vcpu_text_ref, offset) == 0);
VCPU_ASSERT(offsetof(struct vcpu_text_ref, length) == 4);
VCPU_ASSERT(sizeof(struct vcpu_snapshot) == 208);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, magic) == 0);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, size) == 8);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, flags) == 12);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, total_size) == 16);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, tick) == 24);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, now_ns) == 32);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, interval_ns) == 40);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, seed) == 48);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, budget) == 56);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, set_words) == 60);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, cpus) == 64);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, cores) == 80);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, llcs) == 96);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, nodes) == 112);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, distances) == 128);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, domains) == 144);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, vcpus) == 160);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, sets) == 176);
VCPU_ASSERT(offsetof(struct vcpu_snapshot, text) == 192);
VCPU_ASSERT(sizeof(struct vcpu_cpu_row) == 40);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, os_id) == 0);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, flags) == 4);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, core) == 8);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, llc) == 12);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, node) == 16);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, reserved) == 20);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, capacity) == 24);
VCPU_ASSERT(offsetof(struct vcpu_cpu_row, background) == 32);
VCPU_ASSERT(sizeof(struct vcpu_core_row) == 16);
VCPU_ASSERT(offsetof(struct vcpu_core_row, llc) == 0);
VCPU_ASSERT(offsetof(struct vcpu_core_row, node) == 4);
VCPU_ASSERT(offsetof(struct vcpu_core_row, cpus) == 8);
VCPU_ASSERT(offsetof(struct vcpu_core_row, reserved) == 12);
VCPU_ASSERT(sizeof(struct vcpu_llc_row) == 8);
VCPU_ASSERT(offsetof(struct vcpu_llc_row, node) == 0);
VCPU_ASSERT(offsetof(struct vcpu_llc_row, cpus) == 4);
VCPU_ASSERT(sizeof(struct vcpu_node_row) == 8);
VCPU_ASSERT(offsetof(struct vcpu_node_row, os_id) == 0);
VCPU_ASSERT(offsetof(struct vcpu_node_row, cpus) == 4);
VCPU_ASSERT(sizeof(struct vcpu_domain_row) == 48);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, uuid) == 0);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, name) == 16);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, first_vcpu) == 24);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, vcpu_count) == 28);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, flags) == 32);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, memory_node) == 36);
VCPU_ASSERT(offsetof(struct vcpu_domain_row, weight) == 40);
VCPU_ASSERT(sizeof(struct vcpu_vcpu_row) == 56);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, domain) == 0);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, number) == 4);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, cpu) == 8);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, affinity) == 12);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, allowed) == 16);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, flags) == 20);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, slot) == 24);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, reserved) == 28);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, born) == 32);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, load) == 40);
VCPU_ASSERT(offsetof(struct vcpu_vcpu_row, wait) == 48);
VCPU_ASSERT(sizeof(struct vcpu_text) == 16);
VCPU_ASSERT(offsetof(struct vcpu_text, bytes) == 0);
VCPU_ASSERT(offsetof(struct vcpu_text, length) == 8);
VCPU_ASSERT(sizeof(struct vcpu_policy_library) == 32);
VCPU_ASSERT(offsetof(struct vcpu_policy_library, size) == 0);
VCPU_ASSERT(offsetof(struct vcpu_policy_library, major) == 4);
VCPU_ASSERT(offsetof(struct vcpu_policy_library, magic) == 8);
VCPU_ASSERT(offsetof(struct vcpu_policy_library, policy_count) == 16);
VCPU_ASSERT(offsetof(struct vcpu_policy_library, reserved) == 20);
VCPU_ASSERT(offsetof(struct vcpu_policy_library, policies) == 24);
VCPU_ASSERT(sizeof(struct vcpu_policy) == 104);
VCPU_ASSERT(offsetof(struct vcpu_policy, size) == 0);
VCPU_ASSERT(offsetof(struct vcpu_policy, reserved) == 4);
VCPU_ASSERT(offsetof(struct vcpu_policy, name) == 8);
VCPU_ASSERT(offsetof(struct vcpu_policy, version) == 24);
VCPU_ASSERT(offsetof(struct vcpu_policy, summary) == 40);
VCPU_ASSERT(offsetof(struct vcpu_policy, defaults) == 56);
VCPU_ASSERT(offsetof(struct vcpu_policy, create) == 72);
VCPU_ASSERT(offsetof(struct vcpu_policy, decide) == 80);
VCPU_ASSERT(offsetof(struct vcpu_policy, destroy) == 88);
VCPU_ASSERT(offsetof(struct vcpu_policy, extension) == 96);
VCPU_ASSERT(sizeof(struct vcpu_host) == 40);
VCPU_ASSERT(offsetof(struct vcpu_host, size) == 0);
VCPU_ASSERT(offsetof(struct vcpu_host, reserved) == 4);
VCPU_ASSERT(offsetof(struct vcpu_host, context) == 8);
VCPU_ASSERT(offsetof(struct vcpu_host, log) == 16);
VCPU_ASSERT(offsetof(struct vcpu_host, fail) == 24);
VCPU_ASSERT(offsetof(struct vcpu_host, extension) == 32);
VCPU_ASSERT(sizeof(struct vcpu_options) == 40);
VCPU_ASSERT(offsetof(struct vcpu_options, size) == 0);
VCPU_ASSERT(offsetof(struct vcpu_options, reserved) == 4);
VCPU_ASSERT(offsetof(struct vcpu_options, yaml) == 8);
VCPU_ASSERT(offsetof(struct vcpu_options, flat) == 24);
VCPU_ASSERT(sizeof(struct vcpu_plan) == 32);
VCPU_ASSERT(offsetof(struct vcpu_plan, size) == 0);
VCPU_ASSERT(offsetof(struct vcpu_plan, reserved) == 4);
VCPU_ASSERT(offsetof(struct vcpu_plan, context) == 8);
VCPU_ASSERT(offsetof(struct vcpu_plan, pin) == 16);
VCPU_ASSERT(offsetof(struct vcpu_plan, note) == 24);

// ---------------------------------------------------------------------------------------------------------------
// The entry point: what a library has to define, and all that it has to export.

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const struct vcpu_policy_library *vcpu_policy_library_v1(void);

// ---------------------------------------------------------------------------------------------------------------
// Reading a snapshot. All that follows is for convenience; nothing of it is part of the interface.

// "No row": what vcpu_row gives for a reference that is unknown.
#define VCPU_NO_ROW UINT32_MAX

// The row that a reference in a row stands for (0 is the first), or VCPU_NO_ROW.
static inline uint32_t vcpu_row(uint32_t reference) {
    return reference - 1u;
}

// Whether a measure is known, that is, not NaN. Holds under -ffast-math too, where x == x does not tell.
static inline int vcpu_is_known(double measure) {
    uint64_t bits;
    memcpy(&bits, &measure, sizeof bits);
    return (bits & UINT64_C(0x7fffffffffffffff)) <= UINT64_C(0x7ff0000000000000);
}

// A measure, or what shall stand for it where it is unknown.
static inline double vcpu_known_or(double measure, double otherwise) {
    return vcpu_is_known(measure) ? measure : otherwise;
}

// Whether the rows of a table have a field: always true of the fields of this header's first version.
#define VCPU_ROW_HAS(table, type, field) \
    ((table).stride >= offsetof(type, field) + sizeof(((const type *)0)->field))

// The row at an index, or a null pointer behind the last one.
static inline const void *vcpu_row_at(const struct vcpu_snapshot *snapshot, struct vcpu_table table, uint32_t index) {
    const unsigned char *block = (const unsigned char *)(const void *)snapshot;
    return index < table.count ? block + table.offset + (uint64_t)index * table.stride : NULL;
}

static inline const struct vcpu_cpu_row *vcpu_cpu_at(const struct vcpu_snapshot *snapshot, uint32_t index) {
    return (const struct vcpu_cpu_row *)vcpu_row_at(snapshot, snapshot->cpus, index);
}

static inline const struct vcpu_core_row *vcpu_core_at(const struct vcpu_snapshot *snapshot, uint32_t index) {
    return (const struct vcpu_core_row *)vcpu_row_at(snapshot, snapshot->cores, index);
}

static inline const struct vcpu_llc_row *vcpu_llc_at(const struct vcpu_snapshot *snapshot, uint32_t index) {
    return (const struct vcpu_llc_row *)vcpu_row_at(snapshot, snapshot->llcs, index);
}

static inline const struct vcpu_node_row *vcpu_node_at(const struct vcpu_snapshot *snapshot, uint32_t index) {
    return (const struct vcpu_node_row *)vcpu_row_at(snapshot, snapshot->nodes, index);
}

static inline const struct vcpu_domain_row *vcpu_domain_at(const struct vcpu_snapshot *snapshot, uint32_t index) {
    return (const struct vcpu_domain_row *)vcpu_row_at(snapshot, snapshot->domains, index);
}

static inline const struct vcpu_vcpu_row *vcpu_vcpu_at(const struct vcpu_snapshot *snapshot, uint32_t index) {
    return (const struct vcpu_vcpu_row *)vcpu_row_at(snapshot, snapshot->vcpus, index);
}

// How far a node's memory is from another node's CPUs, by their rows; 10 is a node's own. 0 if there is no such node.
static inline uint32_t vcpu_distance(const struct vcpu_snapshot *snapshot, uint32_t from, uint32_t to) {
    uint32_t nodes = snapshot->nodes.count;
    const uint32_t *distance =
        from < nodes && to < nodes
            ? (const uint32_t *)vcpu_row_at(snapshot, snapshot->distances, from * nodes + to)
            : NULL;
    return distance != NULL ? *distance : 0;
}

// A text of the snapshot: a domain's name.
static inline struct vcpu_text vcpu_text_at(const struct vcpu_snapshot *snapshot, struct vcpu_text_ref reference) {
    struct vcpu_text text;
    text.bytes = (const char *)(const void *)snapshot + snapshot->text.offset + reference.offset;
    text.length = reference.length;
    return text;
}

// The words of a set of CPUs, by the reference in a row: snapshot->set_words of them. Null if it is unknown.
static inline const uint64_t *vcpu_set_at(const struct vcpu_snapshot *snapshot, uint32_t reference) {
    return (const uint64_t *)vcpu_row_at(snapshot, snapshot->sets, vcpu_row(reference));
}

// Whether the CPU in a row is in a set.
static inline int vcpu_set_has(const struct vcpu_snapshot *snapshot, uint32_t reference, uint32_t cpu) {
    const uint64_t *words = vcpu_set_at(snapshot, reference);
    return words != NULL && cpu / 64 < snapshot->set_words && (words[cpu / 64] >> cpu % 64 & 1u) != 0;
}

// The only CPU of a set of one, by its row; VCPU_NO_ROW of any other set.
static inline uint32_t vcpu_set_only(const struct vcpu_snapshot *snapshot, uint32_t reference) {
    uint32_t only = VCPU_NO_ROW;
    for (uint32_t cpu = 0; cpu < snapshot->cpus.count; cpu++) {
        if (vcpu_set_has(snapshot, reference, cpu)) {
            if (only != VCPU_NO_ROW) {
                return VCPU_NO_ROW;
            }
            only = cpu;
        }
    }
    return only;
}

// ---------------------------------------------------------------------------------------------------------------
// Talking to the host.

// The text of a string that a zero byte ends.
static inline struct vcpu_text vcpu_text_of(const char *string) {
    struct vcpu_text text;
    text.bytes = string;
    text.length = strlen(string);
    return text;
}

// In the initializer of a static table: the text of a string literal.
#define VCPU_TEXT(literal) { "" literal, sizeof(literal) - 1 }

// Writes a line into the host's log.
static inline void vcpu_log(const struct vcpu_host *host, int32_t level, const char *line) {
    host->log(host->context, level, vcpu_text_of(line));
}

// Says why a call fails, and gives what it then returns:  return vcpu_fail(host, "out of memory");
static inline int32_t vcpu_fail(const struct vcpu_host *host, const char *reason) {
    host->fail(host->context, vcpu_text_of(reason));
    return VCPU_ERROR;
}

// Adds a note to a plan.
static inline int32_t vcpu_note(const struct vcpu_plan *plan, const char *text) {
    return plan->note(plan->context, vcpu_text_of(text));
}

// Adds a pin to one CPU. Both are rows.
static inline int32_t vcpu_pin_to(const struct vcpu_plan *plan, uint32_t vcpu, uint32_t cpu, const char *reason,
                                  double gain) {
    uint64_t words[VCPU_MAX_SET_WORDS];
    uint32_t last = cpu / 64;
    if (last >= VCPU_MAX_SET_WORDS) {
        return VCPU_ERROR_ARGUMENT;
    }
    memset(words, 0, (last + 1) * sizeof words[0]);
    words[last] = UINT64_C(1) << cpu % 64;
    return plan->pin(plan->context, vcpu, words, last + 1, vcpu_text_of(reason), gain);
}

// An option's value as it stands in the flat text. VCPU_ERROR if there is no such key.
static inline int32_t vcpu_option_text(const struct vcpu_options *options, const char *key, struct vcpu_text *value) {
    const char *line = options->flat.bytes;
    uint64_t left = options->flat.length;
    size_t length = strlen(key);
    while (left > 0) {
        const char *line_end = (const char *)memchr(line, '\n', (size_t)left);
        uint64_t line_length = line_end != NULL ? (uint64_t)(line_end - line) : left;
        if (line_length > length && memcmp(line, key, length) == 0 && line[length] == '=') {
            value->bytes = line + length + 1;
            value->length = line_length - length - 1;
            return VCPU_OK;
        }
        line_length += line_end != NULL;
        line += line_length;
        left -= line_length;
    }
    return VCPU_ERROR;
}

// An option's value as a number. VCPU_ERROR if there is no such key, or its value is no finite number.
static inline int32_t vcpu_option_number(const struct vcpu_options *options, const char *key, double *value) {
    struct vcpu_text text;
    char digits[64];
    char *digits_end;
    if (vcpu_option_text(options, key, &text) != VCPU_OK || text.length == 0 || text.length >= sizeof digits) {
        return VCPU_ERROR;
    }
    memcpy(digits, text.bytes, (size_t)text.length);
    digits[text.length] = '\0';
    double number = strtod(digits, &digits_end);
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (*digits_end != '\0' || (bits & UINT64_C(0x7fffffffffffffff)) >= UINT64_C(0x7ff0000000000000)) {
        return VCPU_ERROR;
    }
    *value = number;
    return VCPU_OK;
}

#ifdef __cplusplus
}
#endif

#endif
