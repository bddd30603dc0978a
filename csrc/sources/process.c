/*
 * 4242 (pt_main_thread) S 4200 4242 … of /proc/<pid>/stat (proc_pid_stat(5))
 *
 * The run's process and all its descendants, summed: process_tree.h says who
 * they are, process_cpu.h how their CPU time is added up. One file a process and
 * reading has all of it but the open files: since Linux 6.2 the size of the
 * folder /proc/<pid>/fd is their number; older kernels have them listed once a
 * second.
 *
 * A zombie, which is only waiting to be waited for, has its CPU time and nothing
 * else. One that cannot be read, though it is there, makes the sum a lie: then
 * there is none.
 */
#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../listing.h"
#include "../path.h"
#include "../process_cpu.h"
#include "../process_tree.h"
#include "../source.h"

enum {
    CPU_SECONDS,
    RESIDENT_BYTES,
    VIRTUAL_BYTES,
    RESIDENT_SHARE,
    THREADS,
    OPEN_FILES,
    COLUMNS
};

enum {
    PATH_BYTES = 64,
    FIRST_LINE_BYTES = 64
};

/*
 * The kernel counts in ticks of 10 ms: a value is that of 100 ms at least, less
 * what the thread may be late at its beginning. The reading at the end of a window
 * may come right after another.
 */
static const double QUANTUM_SECONDS = 0.09;

/* Once a second; a little less, so that a window of a second has one. */
static const uint64_t LISTING_PERIOD_NS = 900000000;

/* Memory may be plugged in, or taken back by a hypervisor. */
static const uint64_t MEMORY_PERIOD_NS = UINT64_C(10000000000);

static const smn_series_spec series[] = {
    {"process_cpu_percentage", "percentage", SMN_RATE, CPU_SECONDS, 0, 100.0, QUANTUM_SECONDS,
     "CPU time of the run's process and all its descendants; 100 is one core",
     "/proc/<pid>/stat of each",
     "100 · Δ(utime + stime) / ticks a second / Δt, summed; that of ended ones is kept"},
    {"process_memory_rss_megabytes", "megabytes", SMN_GAUGE, RESIDENT_BYTES, 0, 1e-6, 0.0,
     "their resident memory; what several of them share counts several times",
     "/proc/<pid>/stat of each", "rss · page size / 1e6, summed"},
    {"process_memory_vms_megabytes", "megabytes", SMN_GAUGE, VIRTUAL_BYTES, 0, 1e-6, 0.0,
     "their address space", "/proc/<pid>/stat of each", "vsize / 1e6, summed"},
    {"process_memory_percentage", "percentage", SMN_GAUGE, RESIDENT_SHARE, 0, 100.0, 0.0,
     "their resident memory, of all memory", "/proc/<pid>/stat of each, /proc/meminfo",
     "100 · rss · page size / MemTotal, summed"},
    {"process_threads", "threads", SMN_GAUGE, THREADS, 0, 1.0, 0.0, "their threads",
     "/proc/<pid>/stat of each", "num_threads, summed"},
    {"process_open_files", "files", SMN_GAUGE, OPEN_FILES, 0, 1.0, 0.0, "their open files",
     "/proc/<pid>/fd of each",
     "size of the folder, or its number of entries, summed; about once a second"},
};

typedef struct {
    smn_process_tree tree;
    smn_process_cpu cpu;
    smn_procfile meminfo;
    double page_bytes;
    double memory_bytes; /* NaN: not known */
    uint64_t memory_due_ns;
    int own_pid;     /* by procfs; 0: it does not know us */
    bool has_counts; /* the size of a folder of open files is their number, so far */
    uint64_t listing_due_ns;
} process_state;

static bool is_zombie(const smn_process *process)
{
    return process->now.state == 'Z';
}

/* ---- open files --------------------------------------------------------- */

/* The folder that is being listed is a file that is open, but not one of the run's. */
static int list_files(const process_state *state, int pid, const char *path, double *count)
{
    smn_listing listing;
    int error = smn_listing_open(&listing, state->tree.procfs, path);
    if (error != 0)
        return error;
    while (smn_listing_next(&listing) != NULL)
        *count += 1.0;
    smn_listing_close(&listing);
    if (pid == state->own_pid)
        *count -= 1.0;
    return 0;
}

static int count_files(process_state *state, int pid, double *count)
{
    char path[PATH_BYTES];
    char number[SMN_PATH_NUMBER_BYTES];
    struct stat folder;
    SMN_PATH_JOIN(path, sizeof path, smn_path_number(number, (uint64_t)pid), "/fd");
    if (!state->has_counts)
        return list_files(state, pid, path, count);
    if (fstatat(state->tree.procfs, path, &folder, 0) != 0)
        return -errno;
    *count += (double)folder.st_size;
    if (folder.st_size > 0)
        return 0;
    /* Older kernels always say 0; where it is true a list of nothing costs little. */
    double before = *count;
    int error = list_files(state, pid, path, count);
    state->has_counts = *count <= before;
    return error;
}

static int sum_up_files(process_state *state, uint64_t now_ns, double *column)
{
    double count = 0.0;
    bool is_known = false;
    if (!state->has_counts && now_ns < state->listing_due_ns)
        return 0;
    state->listing_due_ns = now_ns + LISTING_PERIOD_NS;
    for (size_t i = 0; i < state->tree.count; i++) {
        const smn_process *process = &state->tree.processes[i];
        int error = is_zombie(process) ? -ESRCH : count_files(state, process->now.pid, &count);
        is_known = is_known || error == 0;
        if (error != 0 && error != -ENOENT && error != -ESRCH) /* it has not just ended */
            return error;
    }
    if (is_known)
        *column = count;
    return 0;
}

/* ---- memory and threads ------------------------------------------------- */

/* "MemTotal:       24689764 kB", the first line of /proc/meminfo. */
static int read_memory_size(process_state *state)
{
    uint64_t kib;
    int error = smn_procfile_read_start(&state->meminfo, FIRST_LINE_BYTES);
    smn_cursor text = smn_procfile_text(&state->meminfo);
    if (error == 0 && !smn_scan_key(&text, "MemTotal:"))
        error = -EBADMSG;
    if (error == 0)
        error = smn_scan_u64(&text, &kib);
    if (error == 0 && kib == 0)
        error = -EBADMSG;
    state->memory_bytes = error == 0 ? (double)kib * 1024.0 : NAN;
    return error;
}

static void sum_up(const process_state *state, double *columns)
{
    double pages = 0.0;
    double bytes = 0.0;
    double threads = 0.0;
    for (size_t i = 0; i < state->tree.count; i++) {
        const smn_process *process = &state->tree.processes[i];
        pages += (double)process->now.resident_pages;
        bytes += (double)process->now.virtual_bytes;
        /* The first thread of a zombie has ended; the others of a process may go on without it. */
        threads += (double)process->now.threads;
        if (is_zombie(process) && process->now.threads > 0)
            threads -= 1.0;
    }
    columns[CPU_SECONDS] = (double)state->cpu.ticks / (double)state->cpu.ticks_per_second;
    columns[RESIDENT_BYTES] = pages * state->page_bytes;
    columns[VIRTUAL_BYTES] = bytes;
    columns[RESIDENT_SHARE] = pages * state->page_bytes / state->memory_bytes;
    columns[THREADS] = threads;
}

/* ---- the source --------------------------------------------------------- */

static int process_sample(void *opaque, double *columns)
{
    process_state *state = opaque;
    int error = smn_process_tree_read(&state->tree);
    smn_process_cpu_settle(&state->cpu, &state->tree);
    smn_process_tree_forget(&state->tree);
    int search_error = smn_process_tree_search(&state->tree);
    smn_process_cpu_welcome(&state->cpu, &state->tree);
    if (state->tree.count == 0)
        return -ESRCH;
    if (error == 0)
        error = search_error;
    if (error != 0)
        return error;
    const smn_clock *clock = state->tree.clock;
    uint64_t now_ns = clock->monotonic_ns(clock->context);
    if (isnan(state->memory_bytes) || now_ns >= state->memory_due_ns) {
        error = read_memory_size(state);
        state->memory_due_ns = now_ns + MEMORY_PERIOD_NS;
    }
    sum_up(state, columns);
    int files_error = sum_up_files(state, now_ns, &columns[OPEN_FILES]);
    return error != 0 ? error : files_error;
}

static void process_close(void *opaque)
{
    process_state *state = opaque;
    smn_process_tree_release(&state->tree);
    smn_procfile_release(&state->meminfo);
    free(state);
}

static bool is_procfs(int folder)
{
    struct statfs system;
    return fstatfs(folder, &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

static int process_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    process_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    smn_procfile_init(&state->meminfo, environment->procfs, "meminfo", environment->text);
    smn_process_cpu_init(&state->cpu, (uint64_t)sysconf(_SC_CLK_TCK));
    state->page_bytes = (double)sysconf(_SC_PAGESIZE);
    state->memory_bytes = NAN;
    state->own_pid = environment->foreign_procfs ? 0 : (int)getpid();
    state->has_counts = is_procfs(environment->procfs);
    int error = smn_process_tree_init(&state->tree, environment);
    if (error == 0) {
        smn_schema_add_columns(schema, COLUMNS);
        error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    }
    if (error != 0) {
        process_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

const smn_source smn_source_process = {
    .name = "process",
    /* Ten ticks of the kernel's: what is counted in less says little. */
    .min_interval_ns = 100000000,
    .open = process_open,
    .sample = process_sample,
    .close = process_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};
