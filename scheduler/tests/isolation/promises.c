// A policy that breaks one of the promises that every policy makes. Which one is chosen when it is compiled:
//
//     cc -shared -fPIC -I policy-api/include -DPROMISE='"silent"' -o promises.so promises.c

#include "vcpu_policy.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int is(const char *promise) {
    return strcmp(PROMISE, promise) == 0;
}

static int32_t create(const struct vcpu_host *host, const struct vcpu_options *options, void **policy) {
    (void)options;
    *policy = (void *)host;
    return is("refuses its own defaults") ? vcpu_fail(host, "it wants more than it has") : VCPU_OK;
}

static int32_t decide(void *policy, const struct vcpu_snapshot *snapshot, uint64_t size, const struct vcpu_plan *plan) {
    const struct vcpu_host *host = policy;
    uint32_t vcpus = snapshot->vcpus.count, cpus = snapshot->cpus.count;
    char text[64];
    (void)size;
    if (is("silent")) {
        return VCPU_OK;
    }
    if (is("crashes without guests") && vcpus == 0) {
        abort();
    }
    if (is("crashes on one CPU") && cpus == 1) {
        abort();
    }
    if (is("crashes on many vCPUs") && vcpus > 1000) {
        abort();
    }
    if (is("hangs on many vCPUs") && vcpus > 1000) {
        for (;;) {
            pause();
        }
    }
    if (is("gives up") && snapshot->tick == 2) {
        vcpu_fail(host, "it has had enough");
        return VCPU_ERROR_LOST;
    }
    if (is("writes into the snapshot") && vcpus > 0) {
        ((struct vcpu_vcpu_row *)vcpu_vcpu_at(snapshot, 0))->load = 0;
    }
    if (is("reads the clock")) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(text, sizeof text, "it is %lld", (long long)now.tv_sec);
        return vcpu_note(plan, text);
    }
    if (is("counts for all of its kind")) {
        static unsigned decisions;
        snprintf(text, sizeof text, "decision %u", decisions++);
        return vcpu_note(plan, text);
    }
    if (is("asks for a vCPU that is not there")) {
        vcpu_pin_to(plan, vcpus, 0, "why not", 0);
    }
    for (uint32_t i = 0; i < vcpus; i++) {
        const struct vcpu_vcpu_row *vcpu = vcpu_vcpu_at(snapshot, i);
        int movable = (vcpu->flags & VCPU_MOVABLE) != 0;
        if (is("crashes on what waits far from its memory") && vcpu->wait > 0 &&
            vcpu_domain_at(snapshot, vcpu_row(vcpu->domain))->memory_node > 0) {
            abort();
        }
        if (is("crashes without a load") && !vcpu_is_known(vcpu->load)) {
            abort();
        }
        if (is("asks for a CPU that is not there") && movable) {
            vcpu_pin_to(plan, i, cpus, "why not", 0);
        }
        if (is("moves what may not move") && !movable) {
            vcpu_pin_to(plan, i, 0, "why not", 0);
        }
        if (is("pins to a CPU that is not allowed") && movable && !vcpu_set_has(snapshot, vcpu->allowed, 0)) {
            vcpu_pin_to(plan, i, 0, "why not", 0);
        }
        if (is("states a gain without a number") && movable) {
            vcpu_pin_to(plan, i, cpus - 1, "why not", 0.0 / 0.0);
        }
        if (is("pins again and again") && movable && vcpu_set_has(snapshot, vcpu->allowed, cpus - 1)) {
            vcpu_pin_to(plan, i, cpus - 1, "once more", 0);
        }
    }
    return vcpu_note(plan, "nothing else moves");
}

static void destroy(void *policy) {
    (void)policy;
}

static const struct vcpu_policy promises_policy = {
    .size = sizeof promises_policy,
    .name = VCPU_TEXT("promises"),
    .version = VCPU_TEXT("1.0.0"),
    .summary = VCPU_TEXT("breaks a promise"),
    .defaults = VCPU_TEXT(""),
    .create = create,
    .decide = decide,
    .destroy = destroy,
};

static const struct vcpu_policy *const policies[] = {&promises_policy};

static const struct vcpu_policy_library library = {
    .size = sizeof library,
    .major = VCPU_ABI_MAJOR,
    .magic = VCPU_LIBRARY_MAGIC,
    .policy_count = 1,
    .policies = policies,
};

const struct vcpu_policy_library *vcpu_policy_library_v1(void) {
    return &library;
}
