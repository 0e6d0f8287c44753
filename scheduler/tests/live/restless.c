// A policy for tests that cannot wait for something to balance: in every tick it pins each vCPU that may be moved to the next
// CPU that it is allowed.

#include "vcpu_policy.h"

#include <stddef.h>

static int32_t create(const struct vcpu_host *host, const struct vcpu_options *options, void **policy) {
    (void)host, (void)options;
    static char nothing;
    *policy = &nothing;
    return VCPU_OK;
}

static int32_t decide(void *policy, const struct vcpu_snapshot *snapshot, uint64_t snapshot_size,
                      const struct vcpu_plan *plan) {
    (void)policy, (void)snapshot_size;
    uint32_t cpus = snapshot->cpus.count;
    for (uint32_t i = 0; i < snapshot->vcpus.count; i++) {
        const struct vcpu_vcpu_row *vcpu = vcpu_vcpu_at(snapshot, i);
        if ((vcpu->flags & VCPU_MOVABLE) == 0) {
            continue;
        }
        uint32_t only = vcpu_set_only(snapshot, vcpu->affinity);
        uint32_t from = only == VCPU_NO_ROW ? i : only + 1;
        for (uint32_t step = 0; step < cpus; step++) {
            uint32_t cpu = (from + step) % cpus;
            if (cpu != only && vcpu_set_has(snapshot, vcpu->allowed, cpu)) {
                vcpu_pin_to(plan, i, cpu, "restless", 1);
                break;
            }
        }
    }
    return VCPU_OK;
}

static void destroy(void *policy) {
    (void)policy;
}

static const struct vcpu_policy restless = {
    .size = sizeof restless,
    .name = VCPU_TEXT("restless"),
    .version = VCPU_TEXT("1.0.0"),
    .summary = VCPU_TEXT("pins every vCPU anew in every tick"),
    .defaults = VCPU_TEXT(""),
    .create = create,
    .decide = decide,
    .destroy = destroy,
};

static const struct vcpu_policy *const policies[] = {&restless};

static const struct vcpu_policy_library library = {
    .size = sizeof library,
    .major = VCPU_ABI_MAJOR,
    .magic = VCPU_LIBRARY_MAGIC,
    .policy_count = sizeof policies / sizeof policies[0],
    .policies = policies,
};

const struct vcpu_policy_library *vcpu_policy_library_v1(void) {
    return &library;
}
