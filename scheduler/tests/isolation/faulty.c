// A plugin that does what it should not. Which fault, and when it happens, is chosen when it is compiled:
//
//     cc -shared -fPIC -I policy-api/include -DWHEN='"decide"' -DFAULT='"abort"' -o faulty.so faulty.c
//
// WHEN is load (a constructor), make, decide, even (decide, in ticks 2, 4, 6, ...), destroy, exit (a destructor of the
// library) or never. Where LOAD_TOO_ONCE names a file, it happens in a constructor too as soon as there is that file.

#define _GNU_SOURCE
#include "vcpu_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char notes[40][160];
static unsigned note_count;

// What an attempt came to.
static void tried(const char *what, long result) {
    snprintf(notes[note_count++], sizeof notes[0], "%s: %s", what, result >= 0 ? "DONE" : strerror(errno));
}

static void *thread(void *unused) {
    return unused;
}

// Everything that a process without rights could try, one note each.
static void escape(void) {
    int folder = open("/usr", O_RDONLY | O_DIRECTORY);
    tried("read a folder of libraries", folder);
    tried("read a file", open("/etc/passwd", O_RDONLY));
    tried("write a file", open("/tmp/vcpu-policy-host-was-here", O_WRONLY | O_CREAT, 0600));
    tried("change a file's mode", chmod("/tmp", 0777));
    int ends[2] = {-1, -1};
    (void)!pipe(ends);
    tried("change the mode of what is its own", fchmod(ends[0], 0600));
    tried("open what is its own to write", open("/proc/self/comm", O_RDWR));
    pid_t child = fork();
    if (child == 0) {
        for (;;) {
        }
    }
    tried("fork", child);
    pthread_t id;
    errno = pthread_create(&id, NULL, thread, NULL);
    tried("start a thread", errno == 0 ? 0 : -1);
    tried("open a socket", socket(AF_INET, SOCK_STREAM, 0));
    tried("open a datagram socket", socket(AF_INET, SOCK_DGRAM, 0));
    tried("open a local socket", socket(AF_UNIX, SOCK_STREAM, 0));
    tried("signal the scheduler", kill(getppid(), SIGUSR1));
    tried("signal everyone", kill(-1, SIGUSR1));
    tried("have the scheduler signalled", fcntl(2, F_SETOWN, getppid()));
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    tried("pin the scheduler", sched_setaffinity(getppid(), sizeof cpus, &cpus));
    struct rlimit limit = {0, 0};
    tried("limit the scheduler", prlimit(getppid(), RLIMIT_NOFILE, &limit, NULL));
    tried("lower its priority", setpriority(PRIO_PROCESS, (id_t)getppid(), 19));
    struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
    tried("raise its own limits", setrlimit(RLIMIT_AS, &more));
    tried("leave the session", setsid());
    tried("leave the group", setpgid(0, 0));
    tried("become root", setuid(0));
    tried("make memory of its own kind", syscall(SYS_memfd_create, "x", 0));
    tried("share memory", syscall(SYS_shmget, 1, 4096, 0600 | 01000));
    tried("look at shared memory", shmctl(0, 13, NULL));
    tried("open a ring", syscall(SYS_io_uring_setup, 1, NULL));
    tried("outlive the scheduler", prctl(PR_SET_PDEATHSIG, 0));
#ifdef __x86_64__
    tried("leave the namespace by another number", syscall(SYS_unshare | 0x40000000, 0));
#else
    errno = EPERM;
    tried("leave the namespace by another number", -1);
#endif
    if (strcmp(WHEN, "load") != 0) {
        // What loading a library needs, and nothing after it.
        tried("map code", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    }
}

// Refuses all further restrictions of system calls.
static void resist(void) {
    struct sock_filter refuse[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof refuse / sizeof refuse[0], refuse};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

// Writes past the program that hosts it, to whatever descriptor is the socket to the scheduler.
static void to_the_scheduler(const void *bytes, size_t length) {
    // Another of them is the library's copy, which cannot be written; that would be a fault of its own.
    signal(SIGXFSZ, SIG_IGN);
    for (int descriptor = 3; descriptor < 16; descriptor++) {
        if (write(descriptor, bytes, length) < 0) {
            continue;
        }
    }
}

// The number of the request that is being answered: making was the first.
static uint32_t request;

static void frame(uint32_t kind, uint32_t stated, const void *payload, size_t length) {
    unsigned char bytes[256];
    memcpy(bytes, &kind, 4);
    memcpy(bytes + 4, &request, 4);
    memcpy(bytes + 8, &stated, 4);
    memcpy(bytes + 12, payload, length);
    to_the_scheduler(bytes, 12 + length);
}

static int overflow(volatile int depth) {
    volatile char frame_of_it[4096];
    frame_of_it[0] = (char)depth;
    return overflow(depth + 1) + frame_of_it[0];
}

static int is(const char *fault) {
    return strcmp(FAULT, fault) == 0;
}

static int32_t happen(const struct vcpu_host *host, const struct vcpu_plan *plan) {
    unsigned char ones[64];
    memset(ones, 0xff, sizeof ones);
    const unsigned char empty_plan[8] = {0};
    if (is("abort")) {
        abort();
    } else if (is("segfault")) {
        *(volatile int *)(uintptr_t)8 = 1;
    } else if (is("overflow")) {
        return overflow(0);
    } else if (is("divide")) {
        volatile int zero = 0, seven = 7;
        return seven / zero;
    } else if (is("trap")) {
        __builtin_trap();
    } else if (is("loop")) {
        for (volatile int i = 0;; i++) {
        }
    } else if (is("deaf loop")) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, NULL);
        for (volatile int i = 0;; i++) {
        }
    } else if (is("sleep")) {
        for (;;) {
            sleep(3600);
        }
    } else if (is("late")) {
        // It answers, though when nobody waits any more.
        sleep(1);
    } else if (is("stop")) {
        kill(getpid(), SIGSTOP);
    } else if (is("exit")) {
        exit(0);
    } else if (is("allocate")) {
        for (;;) {
            char *memory = malloc(16 << 20);
            memset(memory, 1, 16 << 20);
        }
    } else if (is("leak")) {
        for (int i = 0; i < 8; i++) {
            char *memory = malloc(1 << 20);
            if (memory != NULL) {
                memset(memory, 1, 1 << 20);
            }
        }
    } else if (is("close")) {
        for (int descriptor = 0; descriptor < 64; descriptor++) {
            close(descriptor);
        }
        for (;;) {
            sleep(3600);
        }
    } else if (is("stdout")) {
        for (int i = 0; i < 100000; i++) {
            printf("line %d of its output\n", i);
        }
        fflush(stdout);
    } else if (is("stderr")) {
        for (int i = 0; i < 5000; i++) {
            fprintf(stderr, "line %d of its output \033[31m\n", i);
        }
    } else if (is("error")) {
        return host != NULL ? vcpu_fail(host, "there is nothing to decide") : VCPU_ERROR;
    } else if (is("lost")) {
        return VCPU_ERROR_LOST;
    } else if (is("code")) {
        return 12345;
    } else if (is("exec")) {
        execl("/bin/true", "true", (char *)NULL);
    } else if (is("trace")) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    } else if (is("escape")) {
        escape();
    } else if (is("traceable")) {
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    } else if (is("resist")) {
        resist();
    } else if (is("garbage")) {
        to_the_scheduler(ones, sizeof ones);
    } else if (is("long frame")) {
        frame(104, UINT32_MAX, ones, 0);
    } else if (is("cut frame")) {
        frame(104, 100, ones, 0);
        _exit(0);
    } else if (is("bad plan")) {
        frame(104, sizeof ones, ones, sizeof ones);
    } else if (is("crowded plan")) {
        // Three pins, each of row 0 to no CPU for no reason, and no notes.
        unsigned char crowded[4 + 3 * 20 + 4] = {3};
        frame(104, sizeof crowded, crowded, sizeof crowded);
    } else if (is("wrong answer")) {
        frame(103, 0, ones, 0);
    } else if (is("old answer")) {
        request--;
        frame(104, sizeof empty_plan, empty_plan, sizeof empty_plan);
    } else if (is("two answers")) {
        frame(104, sizeof empty_plan, empty_plan, sizeof empty_plan);
    } else if (is("million") && plan != NULL) {
        for (int i = 0; i < 1000000; i++) {
            vcpu_pin_to(plan, 0, 1, "again", 1);
        }
    } else if (is("nonsense") && plan != NULL) {
        // More than there are vCPUs are not taken; this one has them all.
        const uint64_t beyond[2] = {1, UINT64_C(1) << 63};
        plan->pin(plan->context, UINT32_MAX, beyond, 2, vcpu_text_of("\033[31mred\n"), 0.0 / 0.0);
    } else if (is("bad words") && plan != NULL) {
        plan->pin(plan->context, 0, (const uint64_t *)(uintptr_t)8, 4, vcpu_text_of("reason"), 1);
    } else if (is("bad text") && plan != NULL) {
        struct vcpu_text text = {(const char *)(uintptr_t)8, UINT64_MAX};
        plan->note(plan->context, text);
    } else if (is("bad context") && plan != NULL) {
        plan->note((void *)(uintptr_t)8, vcpu_text_of("note"));
    }
    return VCPU_OK;
}

__attribute__((constructor)) static void constructed(void) {
    if (strcmp(WHEN, "load") == 0) {
        happen(NULL, NULL);
    }
#ifdef LOAD_TOO_ONCE
    if (access(LOAD_TOO_ONCE, F_OK) == 0) {
        happen(NULL, NULL);
    }
#endif
}

__attribute__((destructor)) static void destructed(void) {
    if (strcmp(WHEN, "exit") == 0) {
        happen(NULL, NULL);
    }
}

struct faulty {
    const struct vcpu_host *host;
    unsigned decisions;
};

static int32_t create(const struct vcpu_host *host, const struct vcpu_options *options, void **policy) {
    double limit;
    if (vcpu_option_number(options, "limit", &limit) != VCPU_OK || limit < 0) {
        return vcpu_fail(host, "limit is below 0");
    }
    static struct faulty faulty;
    faulty.host = host;
    faulty.decisions = 0;
    request = 1;
    *policy = &faulty;
    return strcmp(WHEN, "make") == 0 ? happen(host, NULL) : VCPU_OK;
}

static int32_t decide(void *policy, const struct vcpu_snapshot *snapshot, uint64_t size, const struct vcpu_plan *plan) {
    struct faulty *faulty = policy;
    (void)size;
    request++;
    char text[96];
    snprintf(text, sizeof text, "decision %u since it was made, fresh %d", ++faulty->decisions,
             (int)(snapshot->flags & VCPU_SNAPSHOT_FRESH));
    vcpu_note(plan, text);
    int even = strcmp(WHEN, "even") == 0 && snapshot->tick % 2 == 0;
    int32_t code = strcmp(WHEN, "decide") == 0 || even ? happen(faulty->host, plan) : VCPU_OK;
    for (unsigned i = 0; i < note_count; i++) {
        vcpu_note(plan, notes[i]);
    }
    return code;
}

static void destroy(void *policy) {
    (void)policy;
    if (strcmp(WHEN, "destroy") == 0) {
        happen(NULL, NULL);
    }
}

static const struct vcpu_policy faulty_policy = {
    .size = sizeof faulty_policy,
    .name = VCPU_TEXT("faulty"),
    .version = VCPU_TEXT("1.0.0"),
    .summary = VCPU_TEXT("does what it should not"),
    .defaults = VCPU_TEXT("limit: 3\n"),
    .create = create,
    .decide = decide,
    .destroy = destroy,
};

static const struct vcpu_policy *const policies[] = {&faulty_policy};

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
