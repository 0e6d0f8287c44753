
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
