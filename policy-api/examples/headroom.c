// headroom: takes load off every CPU that carries more than a limit, and leaves all others in peace.
//
// The rule, in each tick, for each managed CPU that carries more than `limit` percent, in the order of the CPUs:
//
//     victim = the heaviest vCPU on it that may be moved and fits somewhere (of equals the first)
//     target = the least loaded CPU of the same NUMA node that the victim is allowed on (of equals the first)
//     it fits if the target, with it, carries no more than `limit`
//     pin the victim to the target alone
//
// So at most one vCPU leaves each CPU in a tick; loads are counted on as if the pins were made. A vCPU that is alone on
// its CPU stays, since it would only take its load along. Load that is not of vCPUs counts where it is known.
//
// Promises: no CPU is brought above the limit; nothing crosses a NUMA node; where a CPU is above the limit and nothing
// leaves it, a note says so (each for the first few, one for all others: a plan has room for VCPU_MAX_NOTES). Nothing is
// remembered from tick to tick.
//
// Compile with:  cc -std=c11 -O2 -fPIC -shared -I ../include -o headroom.so headroom.c

#include "vcpu_policy.h"

#include <stdio.h>

// So many CPUs that nothing leaves get a note of their own.
#define MOST_NOTES 16

// An instance: what create makes, decide works with, and destroy frees.
struct headroom {
    const struct vcpu_host *host; // Valid until destroy returns.
    double limit;                 // Percent of a pCPU.
    double *loads;                // By the row of the CPU; memory to work in.
    uint32_t capacity;            // How many of them there is memory for.
    uint32_t stuck;               // CPUs above the limit that nothing leaves, in this tick.
};

// Makes an instance. The options hold every key of the defaults below: the host fills in what the operator left out,
// and refuses keys that are not there. What is left to check are the values.
static int32_t create(const struct vcpu_host *host, const struct vcpu_options *options, void **policy) {
    double limit;
    if (vcpu_option_number(options, "limit", &limit) != VCPU_OK || limit <= 0 || limit > 100) {
        return vcpu_fail(host, "limit is out of range; expected a percentage above 0, up to 100");
    }
    struct headroom *headroom = malloc(sizeof *headroom);
    if (headroom == NULL) {
        return vcpu_fail(host, "out of memory");
    }
    headroom->host = host;
    headroom->limit = limit;
    headroom->loads = NULL;
    headroom->capacity = 0;
    headroom->stuck = 0;
    *policy = headroom;
    return VCPU_OK;
}

// Adds up what each CPU carries. The references of a snapshot were checked: a row that is not VCPU_NO_ROW is there.
static int32_t add_up(struct headroom *headroom, const struct vcpu_snapshot *snapshot) {
    uint32_t cpus = snapshot->cpus.count;
    if (cpus > headroom->capacity) {
        double *loads = realloc(headroom->loads, cpus * sizeof *loads);
        if (loads == NULL) {
            return vcpu_fail(headroom->host, "out of memory");
        }
        headroom->loads = loads;
        headroom->capacity = cpus;
    }
    for (uint32_t cpu = 0; cpu < cpus; cpu++) {
        headroom->loads[cpu] = vcpu_known_or(vcpu_cpu_at(snapshot, cpu)->background, 0);
    }
    for (uint32_t i = 0; i < snapshot->vcpus.count; i++) {
        const struct vcpu_vcpu_row *vcpu = vcpu_vcpu_at(snapshot, i);
        uint32_t cpu = vcpu_row(vcpu->cpu);
        if (cpu != VCPU_NO_ROW && vcpu_is_known(vcpu->load)) {
            headroom->loads[cpu] += vcpu->load;
        }
    }
    return VCPU_OK;
}

// The least loaded managed CPU of `source`'s NUMA node that a vCPU may be pinned to, or VCPU_NO_ROW.
static uint32_t least_loaded(const struct headroom *headroom, const struct vcpu_snapshot *snapshot, uint32_t source,
                             const struct vcpu_vcpu_row *vcpu) {
    uint32_t node = vcpu_cpu_at(snapshot, source)->node;
    uint32_t least = VCPU_NO_ROW;
    for (uint32_t i = 0; i < snapshot->cpus.count; i++) {
        const struct vcpu_cpu_row *cpu = vcpu_cpu_at(snapshot, i);
        int eligible = i != source && cpu->node == node && (cpu->flags & VCPU_MANAGED) != 0 &&
                       vcpu_set_has(snapshot, vcpu->allowed, i);
        if (eligible && (least == VCPU_NO_ROW || headroom->loads[i] < headroom->loads[least])) {
            least = i;
        }
    }
    return least;
}

// Says why nothing leaves a CPU that carries too much.
static void stays(struct headroom *headroom, const struct vcpu_plan *plan, const char *text) {
    headroom->stuck++;
    if (headroom->stuck <= MOST_NOTES) {
        vcpu_note(plan, text);
    }
}

// Takes one vCPU off a CPU that carries too much, or says why none can be.
static void relieve(struct headroom *headroom, const struct vcpu_snapshot *snapshot, uint32_t source,
                    const struct vcpu_plan *plan) {
    uint32_t victim = VCPU_NO_ROW, target = VCPU_NO_ROW, sharing = 0;
    double moved = 0, *loads = headroom->loads;
    for (uint32_t i = 0; i < snapshot->vcpus.count; i++) {
        const struct vcpu_vcpu_row *vcpu = vcpu_vcpu_at(snapshot, i);
        if (vcpu_row(vcpu->cpu) != source || !(vcpu_known_or(vcpu->load, 0) > 0)) {
            continue;
        }
        sharing++;
        const struct vcpu_domain_row *domain = vcpu_domain_at(snapshot, vcpu_row(vcpu->domain));
        if ((vcpu->flags & VCPU_MOVABLE) == 0 || (domain->flags & VCPU_MANAGED) == 0 || vcpu->load <= moved) {
            continue;
        }
        uint32_t cpu = least_loaded(headroom, snapshot, source, vcpu);
        // One that is pinned there already, though it ran here before, has nothing to gain from a pin.
        int fits = cpu != VCPU_NO_ROW && loads[cpu] + vcpu->load <= headroom->limit &&
                   vcpu_set_only(snapshot, vcpu->affinity) != cpu;
        if (fits) {
            victim = i;
            target = cpu;
            moved = vcpu->load;
        }
    }
    char text[256];
    unsigned source_id = vcpu_cpu_at(snapshot, source)->os_id;
    if (sharing < 2) {
        snprintf(text, sizeof text, "cpu %u carries %.1f %%, but by one vCPU at most: moving it would help nobody",
                 source_id, loads[source]);
        stays(headroom, plan, text);
    } else if (victim == VCPU_NO_ROW) {
        snprintf(text, sizeof text,
                 "cpu %u carries %.1f %%, and no vCPU on it may move to a cpu of its node with room for it", source_id,
                 loads[source]);
        stays(headroom, plan, text);
    } else {
        unsigned target_id = vcpu_cpu_at(snapshot, target)->os_id;
        snprintf(text, sizeof text, "cpu %u carries %.1f %%, more than %g %%; with %.1f %% more, cpu %u carries %.1f %%",
                 source_id, loads[source], headroom->limit, moved, target_id, loads[target] + moved);
        double excess = loads[source] - headroom->limit;
        vcpu_pin_to(plan, victim, target, text, moved < excess ? moved : excess);
        loads[source] -= moved;
        loads[target] += moved;
    }
}

// Decides one tick.
static int32_t decide(void *policy, const struct vcpu_snapshot *snapshot, uint64_t snapshot_size,
                      const struct vcpu_plan *plan) {
    struct headroom *headroom = policy;
    (void)snapshot_size; // The snapshot was checked; it is for those who want to copy it.
    int32_t code = add_up(headroom, snapshot);
    if (code != VCPU_OK) {
        return code;
    }
    // Loads change while pins are planned, though never to above the limit: what is above it now was so before.
    int above = 0;
    headroom->stuck = 0;
    for (uint32_t i = 0; i < snapshot->cpus.count; i++) {
        const struct vcpu_cpu_row *cpu = vcpu_cpu_at(snapshot, i);
        if ((cpu->flags & VCPU_MANAGED) != 0 && headroom->loads[i] > headroom->limit) {
            relieve(headroom, snapshot, i, plan);
            above = 1;
        }
    }
    char text[96];
    if (headroom->stuck > MOST_NOTES) {
        snprintf(text, sizeof text, "%u more cpus carry more than %g %%, and nothing on them may or can leave",
                 headroom->stuck - MOST_NOTES, headroom->limit);
        vcpu_note(plan, text);
    }
    if (!above) {
        snprintf(text, sizeof text, "no cpu carries more than %g %%", headroom->limit);
        vcpu_note(plan, text);
    }
    return VCPU_OK;
}

static void destroy(void *policy) {
    struct headroom *headroom = policy;
    free(headroom->loads);
    free(headroom);
}

// The tables: what the host reads before it makes an instance. They are static, so they stay for good.
static const struct vcpu_policy headroom_policy = {
    .size = sizeof headroom_policy,
    .name = VCPU_TEXT("headroom"),
    .version = VCPU_TEXT("1.0.0"),
    .summary = VCPU_TEXT("pins one vCPU a tick away from each CPU above a limit, within its NUMA node"),
    .defaults = VCPU_TEXT("limit: 90.0 # percent of a pCPU\n"),
    .create = create,
    .decide = decide,
    .destroy = destroy,
};

static const struct vcpu_policy *const policies[] = {&headroom_policy};

static const struct vcpu_policy_library library = {
    .size = sizeof library,
    .major = VCPU_ABI_MAJOR,
    .magic = VCPU_LIBRARY_MAGIC,
    .policy_count = sizeof policies / sizeof policies[0],
    .policies = policies,
};

// The one symbol that a library exports.
const struct vcpu_policy_library *vcpu_policy_library_v1(void) {
    return &library;
}
