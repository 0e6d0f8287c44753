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
