// A library that works, each part of which can be replaced: see broken.rs.

#include "vcpu_policy.h"

#ifndef NAME
#define NAME VCPU_TEXT("still")
#endif
#ifndef SUMMARY
#define SUMMARY VCPU_TEXT("never moves a vCPU")
#endif
#ifndef DEFAULTS
#define DEFAULTS VCPU_TEXT("")
#endif
#ifndef CREATE
#define CREATE create
#endif
#ifndef DECIDE
#define DECIDE decide
#endif
#ifndef DESTROY
#define DESTROY destroy
#endif
#ifndef POLICY_SIZE
#define POLICY_SIZE sizeof(struct vcpu_policy)
#endif
#ifndef POLICY
#define POLICY &still
#endif
#ifndef POLICIES
#define POLICIES once
#endif
#ifndef COUNT
#define COUNT 1
#endif
#ifndef MAGIC
#define MAGIC VCPU_LIBRARY_MAGIC
#endif
#ifndef MAJOR
#define MAJOR VCPU_ABI_MAJOR
#endif
#ifndef LIBRARY_SIZE
#define LIBRARY_SIZE sizeof(struct vcpu_policy_library)
#endif
#ifndef TABLE
#define TABLE &library
#endif

int32_t create(const struct vcpu_host *host, const struct vcpu_options *options, void **policy);
int32_t decide(void *policy, const struct vcpu_snapshot *snapshot, uint64_t size, const struct vcpu_plan *plan);
void destroy(void *policy);

int32_t create(const struct vcpu_host *host, const struct vcpu_options *options, void **policy) {
    (void)host, (void)options, (void)policy;
    return VCPU_OK;
}

int32_t decide(void *policy, const struct vcpu_snapshot *snapshot, uint64_t size, const struct vcpu_plan *plan) {
    (void)policy, (void)snapshot, (void)size;
    return vcpu_note(plan, "nothing moves");
}

void destroy(void *policy) {
    (void)policy;
}

const struct vcpu_policy still = {
    .size = POLICY_SIZE,
    .name = NAME,
    .version = VCPU_TEXT("1.0.0"),
    .summary = SUMMARY,
    .defaults = DEFAULTS,
    .create = CREATE,
    .decide = DECIDE,
    .destroy = DESTROY,
};

const struct vcpu_policy *const once[] = {POLICY};
const struct vcpu_policy *const twice[] = {&still, &still};

const struct vcpu_policy_library library = {
    .size = LIBRARY_SIZE,
    .major = MAJOR,
    .magic = MAGIC,
    .policy_count = COUNT,
    .policies = POLICIES,
};

const struct vcpu_policy_library *vcpu_policy_library_v1(void);

const struct vcpu_policy_library *vcpu_policy_library_v1(void) {
    return TABLE;
}
