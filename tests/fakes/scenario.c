#include "scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    RECORDS = 4096, /* a power of two */
    NAME_BYTES = 112,
    SLOTS = SMN_FAKE_MOST_INSTANCES + 1, /* of a device: itself and its instances */
    ANY = -2,
    MOST_WORDS = 512
};

/* From second `from` on the value holds, until the next step's. */
typedef struct {
    double from;
    double value;
} step;

typedef struct {
    step *steps;
    int count;
    int is_set;
    char *text;
    double since;   /* the integral begins here … */
    double carried; /* … with what the scenarios before this one left */
} series;

typedef struct {
    int device, instance; /* ANY: all */
    const char *function; /* ends in '*' for all that begin so */
    int code;             /* to fail with, or 0 … */
    double seconds;       /* … to sleep */
    double from, until;
    unsigned long times;
    double chance;
    atomic_ulong calls; /* that all the rest applies to */
} rule;

typedef struct scenario {
    struct scenario *before; /* stays in memory: other threads may be reading it */
    int devices;             /* -1: no line yet */
    int live;
    uint64_t seed;
    char *count_path;
    int items;
    series *all; /* items × devices × SLOTS */
    unsigned char instances[SMN_FAKE_MOST_DEVICES];
    rule *rules;
    int rule_count;
    struct stat file;
} scenario;

/* Of the file of counts: native byte order, 128 bytes; free where state is not 2. */
struct record {
    char name[NAME_BYTES];
    _Atomic uint64_t state; /* 0 free, 1 being named, 2 in use */
    _Atomic uint64_t count;
};

static struct timespec loaded;
static const char *path;
static scenario *_Atomic current;
static pthread_mutex_t reloading = PTHREAD_MUTEX_INITIALIZER;
static struct record *records;

/* ---- mistakes ----------------------------------------------------------- */

static int line_number;

__attribute__((noreturn, format(printf, 1, 2))) static void mistake(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "fake GPUs: %s:%d: ", path != NULL ? path : "SMN_FAKE_GPUS", line_number);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

static void *must(void *memory)
{
    if (memory == NULL)
        mistake("out of memory");
    return memory;
}

/* ---- reading a scenario ------------------------------------------------- */

static double number(const char *word)
{
    char *end;
    double value = strtod(word, &end);
    if (end == word || *end != '\0' || isnan(value))
        mistake("'%s' is no number", word);
    return value;
}

static double value_of(const char *word)
{
    return strcmp(word, "none") == 0 ? NAN : number(word);
}

static int index_of(const char *word, int end, const char *what)
{
    double value = number(word);
    if (!(value >= 0 && value < end) || value != floor(value))
        mistake("'%s' is no %s: there are %d", word, what, end);
    return (int)value;
}

static series *series_of(const scenario *s, int item, int device, int instance)
{
    return &s->all[((size_t)item * (size_t)s->devices + (size_t)device) * SLOTS +
                   (size_t)(instance + 1)];
}

static void set_steps(series *target, const step *steps, int count)
{
    free(target->steps);
    target->steps = must(malloc((size_t)count * sizeof *steps));
    memcpy(target->steps, steps, (size_t)count * sizeof *steps);
    target->count = count;
}

static void set_defaults(scenario *s)
{
    while (smn_fake_items[s->items].name != NULL)
        s->items++;
    s->all = must(calloc((size_t)s->items * (size_t)s->devices * SLOTS + 1, sizeof *s->all));
    for (int i = 0; i < s->items; i++) {
        const smn_fake_item *item = &smn_fake_items[i];
        for (int d = 0; d < s->devices; d++) {
            step own = {-INFINITY, item->base + item->step * d};
            set_steps(series_of(s, i, d, SMN_FAKE_NO_INSTANCE), &own, 1);
            for (int n = 0; n < SMN_FAKE_MOST_INSTANCES; n++) {
                step instance = {-INFINITY, item->instance_base + item->instance_step * n};
                set_steps(series_of(s, i, d, n), &instance, 1);
            }
        }
    }
}

/* "0", "*", "0:1", "*:1"; and with "*" for the instance in a rule. */
static void read_target(const scenario *s, char *word, int *device, int *instance)
{
    char *colon = strchr(word, ':');
    if (s->devices < 0)
        mistake("'devices' must come first");
    *instance = SMN_FAKE_NO_INSTANCE;
    if (colon != NULL) {
        *colon = '\0';
        *instance = strcmp(colon + 1, "*") == 0
                        ? ANY
                        : index_of(colon + 1, SMN_FAKE_MOST_INSTANCES, "instance");
    }
    *device = strcmp(word, "*") == 0 ? ANY : index_of(word, s->devices, "device");
    if (*device == ANY && colon == NULL)
        *instance = ANY;
}

static int item_named(const char *name)
{
    for (int i = 0; smn_fake_items[i].name != NULL; i++)
        if (strcmp(smn_fake_items[i].name, name) == 0)
            return i;
    mistake("there is no value '%s'", name);
}

/* words: VALUE [@SECONDS VALUE]… */
static int read_steps(char **words, int count, step *steps)
{
    int n = 0;
    if (count % 2 == 0)
        mistake("a value must be followed by '@SECONDS VALUE' or nothing");
    steps[n++] = (step){-INFINITY, value_of(words[0])};
    for (int w = 1; w < count; w += 2) {
        if (words[w][0] != '@')
            mistake("'%s' should be '@SECONDS'", words[w]);
        steps[n] = (step){number(words[w] + 1), value_of(words[w + 1])};
        if (steps[n].from <= steps[n - 1].from)
            mistake("'%s' is not later than the time before", words[w]);
        n++;
    }
    return n;
}

static void read_value(scenario *s, int device, int instance, char **words, int count,
                       const char *rest)
{
    step steps[MOST_WORDS];
    int item = item_named(words[0]);
    int is_text = smn_fake_items[item].is_text;
    if (count < 2)
        mistake("'%s' of what value?", words[0]);
    int step_count = is_text ? 0 : read_steps(words + 1, count - 1, steps);
    if (device == ANY && instance == ANY)
        instance = SMN_FAKE_NO_INSTANCE;
    if (instance == ANY)
        mistake("a value needs the number of the instance");
    for (int d = device == ANY ? 0 : device; d < (device == ANY ? s->devices : device + 1); d++) {
        series *target = series_of(s, item, d, instance);
        target->is_set = 1;
        free(target->text);
        target->text = is_text ? must(strdup(rest)) : NULL;
        if (!is_text)
            set_steps(target, steps, step_count);
        if (instance >= 0)
            s->instances[d] |= (unsigned char)(1U << instance);
    }
}

static int matches(const char *pattern, const char *function)
{
    size_t length = strlen(pattern);
    if (length > 0 && pattern[length - 1] == '*')
        return strncmp(pattern, function, length - 1) == 0;
    return strcmp(pattern, function) == 0;
}

static const char *read_function(const char *word)
{
    for (int i = 0; smn_fake_functions[i] != NULL; i++)
        if (matches(word, smn_fake_functions[i]))
            return must(strdup(word));
    mistake("there is no function '%s'", word);
}

static int read_code(const char *word)
{
    for (int i = 0; smn_fake_codes[i].name != NULL; i++)
        if (strcmp(smn_fake_codes[i].name, word) == 0)
            return smn_fake_codes[i].code;
    double code = number(word);
    if (code != floor(code) || code == 0 || fabs(code) > 1e9)
        mistake("'%s' is no code to fail with", word);
    return (int)code;
}

static void read_condition(rule *r, const char *name, const char *word)
{
    double value = number(word);
    if (strcmp(name, "from") == 0)
        r->from = value;
    else if (strcmp(name, "until") == 0)
        r->until = value;
    else if (strcmp(name, "times") == 0 && value >= 0 && value == floor(value) && value < 1e9)
        r->times = (unsigned long)value;
    else if (strcmp(name, "chance") == 0 && value >= 0 && value <= 1)
        r->chance = value;
    else
        mistake("'%s %s' is no condition", name, word);
}

/* words: fail|sleep FUNCTION CODE|SECONDS [CONDITION NUMBER]… */
static void read_rule(scenario *s, int device, int instance, char **words, int count)
{
    if (count < 3 || count % 2 == 0)
        mistake("'%s' needs a function, what happens, and pairs of conditions", words[0]);
    size_t bytes = (size_t)(s->rule_count + 1) * sizeof *s->rules;
    s->rules = must(realloc(s->rules, bytes));
    rule *r = &s->rules[s->rule_count++];
    memset(r, 0, sizeof *r);
    r->device = device;
    r->instance = instance;
    r->function = read_function(words[1]);
    r->from = -INFINITY;
    r->until = INFINITY;
    r->times = ~0UL;
    r->chance = 1;
    if (strcmp(words[0], "fail") == 0)
        r->code = read_code(words[2]);
    else
        r->seconds = number(words[2]);
    for (int w = 3; w < count; w += 2)
        read_condition(r, words[w], words[w + 1]);
}

/* What comes after the first `skip` words of a line. */
static const char *rest_of(const char *line, int skip)
{
    line += strspn(line, " \t");
    for (int i = 0; i < skip; i++) {
        line += strcspn(line, " \t");
        line += strspn(line, " \t");
    }
    return line;
}

static void read_devices(scenario *s, const char *word)
{
    if (s->devices >= 0)
        mistake("'devices' must be said once");
    s->devices = index_of(word, SMN_FAKE_MOST_DEVICES + 1, "number of devices");
    set_defaults(s);
}

/* Returns whether the line was about the whole scenario. */
static int read_setting(scenario *s, char **words, int count)
{
    if (strcmp(words[0], "live") == 0 && count == 1)
        s->live = 1;
    else if (strcmp(words[0], "seed") == 0 && count == 2)
        s->seed = (uint64_t)index_of(words[1], 1 << 30, "seed");
    else if (strcmp(words[0], "count") == 0 && count == 2)
        s->count_path = must(strdup(words[1]));
    else if (strcmp(words[0], "devices") == 0 && count == 2)
        read_devices(s, words[1]);
    else
        return 0;
    return 1;
}

/* "for nvidia": whether the lines after it are for us. */
static int is_for_us(const char *library)
{
    static const char *const known[] = {"all", "nvidia", "amd"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(library, known[i]) == 0)
            return i == 0 || strcmp(library, smn_fake_library) == 0;
    mistake("there is no library '%s'", library);
}

static void read_line(scenario *s, char *line, int *ours)
{
    char *words[MOST_WORDS];
    int count = 0;
    char *rest = must(strdup(rest_of(line, 2)));
    for (char *save, *word = strtok_r(line, " \t", &save); word != NULL && count < MOST_WORDS;
         word = strtok_r(NULL, " \t", &save))
        words[count++] = word;
    if (count == MOST_WORDS)
        mistake("too many words");
    if (count == 2 && strcmp(words[0], "for") == 0) {
        *ours = is_for_us(words[1]);
    } else if (count > 0 && words[0][0] != '#' && *ours && !read_setting(s, words, count)) {
        int device, instance;
        if (count < 2)
            mistake("'%s' alone says nothing", words[0]);
        read_target(s, words[0], &device, &instance);
        if (strcmp(words[1], "fail") == 0 || strcmp(words[1], "sleep") == 0)
            read_rule(s, device, instance, words + 1, count - 1);
        else
            read_value(s, device, instance, words + 1, count - 1, rest);
    }
    free(rest);
}

static scenario *read_scenario(void)
{
    char *line = NULL;
    size_t size = 0;
    int ours = 1;
    scenario *s = must(calloc(1, sizeof *s));
    s->devices = -1;
    s->seed = 1;
    line_number = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL || fstat(fileno(file), &s->file) != 0)
        mistake("cannot be read: %s", strerror(errno));
    while (getline(&line, &size, file) >= 0) {
        line_number++;
        line[strcspn(line, "\r\n")] = '\0';
        read_line(s, line, &ours);
    }
    if (ferror(file))
        mistake("cannot be read: %s", strerror(errno));
    fclose(file);
    free(line);
    if (s->devices < 0)
        mistake("'devices' is missing");
    return s;
}

/* ---- time --------------------------------------------------------------- */

static double seconds_between(struct timespec from, struct timespec to)
{
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
}

double smn_fake_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return seconds_between(loaded, now);
}

/* Not even a signal ends it. */
static void sleep_for(double seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    end.tv_nsec += (long)((seconds - floor(seconds)) * 1e9);
    if (end.tv_nsec >= 1000000000L) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000L;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
        ;
}

/* ---- values ------------------------------------------------------------- */

static double integral(const series *v, double now)
{
    double sum = v->carried;
    for (int i = 0; i < v->count; i++) {
        double from = fmax(v->steps[i].from, v->since);
        double to = i + 1 < v->count ? fmin(v->steps[i + 1].from, now) : now;
        if (to > from && !isnan(v->steps[i].value))
            sum += v->steps[i].value * (to - from);
    }
    return sum;
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Counters go on where they are; those of a device that was away for a while begin anew. */
static void carry_over(scenario *next, const scenario *before, double now)
{
    int devices = next->devices < before->devices ? next->devices : before->devices;
    for (int i = 0; i < next->items; i++)
        for (int d = 0; d < next->devices; d++)
            for (int n = SMN_FAKE_NO_INSTANCE; n < SMN_FAKE_MOST_INSTANCES; n++) {
                series *v = series_of(next, i, d, n);
                v->since = now;
                if (d < devices)
                    v->carried = integral(series_of(before, i, d, n), now);
            }
}

/* The scenario of now. */
static const scenario *look(void)
{
    struct stat file;
    scenario *s = atomic_load(&current);
    if (!s->live)
        return s;
    pthread_mutex_lock(&reloading);
    s = atomic_load(&current);
    if (stat(path, &file) != 0)
        mistake("has gone: %s", strerror(errno));
    if (!same_file(&file, &s->file)) {
        scenario *next = read_scenario();
        carry_over(next, s, smn_fake_now());
        next->before = s;
        atomic_store(&current, next);
        s = next;
    }
    pthread_mutex_unlock(&reloading);
    return s;
}

static const series *find(int item, int device, int instance)
{
    const scenario *s = atomic_load(&current);
    if (item < 0 || item >= s->items || device < 0 || device >= s->devices || instance < -1 ||
        instance >= SMN_FAKE_MOST_INSTANCES)
        return NULL;
    return series_of(s, item, device, instance);
}

int smn_fake_devices(void)
{
    return atomic_load(&current)->devices;
}

int smn_fake_has_instance(int device, int instance)
{
    const scenario *s = atomic_load(&current);
    return device >= 0 && device < s->devices && instance >= 0 &&
           instance < SMN_FAKE_MOST_INSTANCES && (s->instances[device] >> instance & 1);
}

double smn_fake_value(int item, int device, int instance)
{
    const series *v = find(item, device, instance);
    if (v == NULL || v->count == 0)
        return NAN;
    int last = 0;
    if (v->count > 1)
        for (double now = smn_fake_now(); last + 1 < v->count && v->steps[last + 1].from <= now;)
            last++;
    return v->steps[last].value;
}

int smn_fake_is_set(int item, int device, int instance)
{
    const series *v = find(item, device, instance);
    return v != NULL && v->is_set;
}

double smn_fake_integral(int item, int device, int instance, double now)
{
    const series *v = find(item, device, instance);
    return v != NULL ? integral(v, now) : 0;
}

const char *smn_fake_text(int item, int device, int instance)
{
    const series *v = find(item, device, instance);
    return v != NULL ? v->text : NULL;
}

uint64_t smn_fake_u64(double value)
{
    if (value < 0)
        return value > -9e18 ? (uint64_t)(int64_t)value : 0;
    return value < 18446744073709551615.0 ? (uint64_t)value : UINT64_MAX;
}

uint32_t smn_fake_u32(double value)
{
    if (value < 0)
        return (uint32_t)smn_fake_u64(value);
    return value < 4294967295.0 ? (uint32_t)value : UINT32_MAX;
}

/* ---- counting ----------------------------------------------------------- */

static _Atomic int depth;
static _Atomic pid_t owner;

void smn_fake_open(void)
{
    if (atomic_fetch_add(&depth, 1) == 0)
        atomic_store(&owner, getpid());
}

int smn_fake_close(void)
{
    int before = atomic_load(&depth);
    do {
        if (before == 0)
            return -1;
    } while (!atomic_compare_exchange_weak(&depth, &before, before - 1));
    if (before == 1)
        atomic_store(&owner, 0);
    return 0;
}

int smn_fake_is_open(void)
{
    return atomic_load(&depth) > 0;
}

/* Whether the library was initialised by the process that this one was forked from. */
static int is_forked(void)
{
    pid_t pid = atomic_load(&owner);
    return pid != 0 && pid != getpid();
}

static void map_records(const char *file)
{
    size_t bytes = RECORDS * sizeof *records;
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        mistake("count %s: %s", file, strerror(errno));
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        mistake("count %s: %s", file, strerror(errno));
    close(fd);
    records = memory;
}

/* Several processes may look for, and name, records at the same time. */
static struct record *record_named(const char *name)
{
    uint64_t hash = 14695981039346656037U;
    for (const char *c = name; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211U;
    for (uint64_t n = 0; n < RECORDS; n++) {
        struct record *r = &records[(hash + n) % RECORDS];
        uint64_t state = 0;
        if (atomic_compare_exchange_strong(&r->state, &state, 1)) {
            snprintf(r->name, sizeof r->name, "%s", name);
            atomic_store(&r->state, 2);
            return r;
        }
        while (atomic_load(&r->state) == 1)
            ;
        if (strcmp(r->name, name) == 0)
            return r;
    }
    mistake("the file of counts is full");
}

static struct record *record_of(const char *function, int device, int instance, int forked)
{
    char name[NAME_BYTES];
    const char *prefix = forked ? "forked " : "";
    if (device < 0)
        snprintf(name, sizeof name, "%s%s", prefix, function);
    else if (instance < 0)
        snprintf(name, sizeof name, "%s%s %d", prefix, function, device);
    else
        snprintf(name, sizeof name, "%s%s %d:%d", prefix, function, device, instance);
    return record_named(name);
}

static void count(smn_fake_function *self, const char *function, int device, int instance)
{
    struct record *r;
    int forked = is_forked();
    int is_simple = instance < 0 && !forked;
    void *_Atomic *remembered = &self->records[device + 1];
    if (!is_simple || (r = atomic_load(remembered)) == NULL) {
        r = record_of(function, device, instance, forked);
        if (is_simple)
            atomic_store(remembered, r);
    }
    atomic_fetch_add(&r->count, 1);
}

/* ---- calls -------------------------------------------------------------- */

/* The same numbers in every run: a mix of the seed, the line and the call. */
static double drawn(uint64_t seed, uint64_t line, uint64_t call)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15U + line * 0xD1B54A32D192ED03U + call;
    x += 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

static int is_about(const rule *r, const char *function, int device, int instance)
{
    int everything = r->device == ANY && r->instance == ANY;
    if (!everything && ((r->device != ANY && r->device != device) || device < 0))
        return 0;
    if (!everything && (r->instance == ANY ? instance < 0 : r->instance != instance))
        return 0;
    return matches(r->function, function);
}

static int applies(const scenario *s, int index, const char *function, int device, int instance)
{
    rule *r = &s->rules[index];
    if (!is_about(r, function, device, instance))
        return 0;
    if (r->from != -INFINITY || r->until != INFINITY) {
        double now = smn_fake_now();
        if (now < r->from || now >= r->until)
            return 0;
    }
    unsigned long call = atomic_fetch_add(&r->calls, 1);
    return call < r->times && (r->chance >= 1 || drawn(s->seed, (uint64_t)index, call) < r->chance);
}

int smn_fake_enter(smn_fake_function *self, const char *function, int device, int instance)
{
    if (records != NULL)
        count(self, function, device, instance);
    const scenario *s = look();
    int code = 0;
    for (int i = 0; i < s->rule_count && code == 0; i++) {
        if (applies(s, i, function, device, instance)) {
            code = s->rules[i].code;
            if (code == 0)
                sleep_for(s->rules[i].seconds);
        }
    }
    return code;
}

__attribute__((constructor)) static void load(void)
{
    clock_gettime(CLOCK_MONOTONIC, &loaded);
    path = getenv("SMN_FAKE_GPUS");
    if (path == NULL)
        mistake("names no scenario");
    scenario *s = read_scenario();
    if (s->count_path != NULL) {
        map_records(s->count_path);
        uint64_t none = 0;
        atomic_compare_exchange_strong(&record_named("loaded")->count, &none,
                                       (uint64_t)loaded.tv_sec * 1000000000U +
                                           (uint64_t)loaded.tv_nsec);
    }
    atomic_store(&current, s);
}
