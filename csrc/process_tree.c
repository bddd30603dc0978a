#include "process_tree.h"

#include <errno.h>
#include <unistd.h>

#include "listing.h"
#include "path.h"
#include "reserve.h"

enum {
    PATH_BYTES = 96
};

/*
 * Ten searches a second, less what the thread may be early. A search opens a
 * file for each thread of each member: it takes a hundredth of the time at most,
 * and a process of ten thousand threads is not searched all the time.
 */
static const uint64_t SEARCH_PERIOD_NS = 90000000;
static const uint64_t SEARCH_SHARE = 100;
static const uint64_t SEARCH_LONGEST_PERIOD_NS = UINT64_C(10000000000);

/*
 * Where the kernel keeps no lists of children (CONFIG_PROC_CHILDREN), all
 * processes of the machine are asked who their parent is, once a second at most:
 * a child is found that much later, and its CPU time is counted then.
 */
static const uint64_t WALK_PERIOD_NS = 900000000;

static const size_t PROCESSES_BYTES = SMN_MOST_PROCESSES * sizeof(smn_process);

/* ---- the members -------------------------------------------------------- */

static void link_in(smn_process_tree *tree, size_t index)
{
    smn_process *process = &tree->processes[index];
    uint32_t *bucket = &tree->buckets[(uint32_t)process->now.pid % SMN_PROCESS_BUCKETS];
    process->next = *bucket;
    *bucket = (uint32_t)index + 1;
}

static smn_process *find(const smn_process_tree *tree, int pid)
{
    uint32_t at = tree->buckets[(uint32_t)pid % SMN_PROCESS_BUCKETS];
    while (at != 0 && tree->processes[at - 1].now.pid != pid)
        at = tree->processes[at - 1].next;
    return at != 0 ? &tree->processes[at - 1] : NULL;
}

/* -EFBIG when there is no room. */
static int add(smn_process_tree *tree, const smn_pid_stat *stat, bool is_there)
{
    if (tree->count == SMN_MOST_PROCESSES)
        return -EFBIG;
    tree->processes[tree->count] = (smn_process){
        .now = *stat,
        .own_before = stat->own_ticks,
        .waited_before = stat->waited_ticks,
        .is_new = true,
        .is_there = is_there,
    };
    link_in(tree, tree->count++);
    return 0;
}

smn_process *smn_process_tree_ancestor(smn_process_tree *tree, const smn_process *process)
{
    for (int i = 0; i < SMN_MOST_GENERATIONS; i++) {
        smn_process *parent = find(tree, process->now.parent);
        /* A parent that is younger than its child is another process of this pid. */
        if (parent == NULL || parent->now.start_ticks > process->now.start_ticks)
            return NULL;
        if (parent->is_there)
            return parent;
        process = parent;
    }
    return NULL;
}

/* Whoever's parent has ended is taken for the next ancestor's until it says whose it is. */
static void adopt_orphans(smn_process_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        const smn_process *parent = find(tree, process->now.parent);
        if (!process->is_there || parent == NULL || parent->is_there)
            continue;
        const smn_process *ancestor = smn_process_tree_ancestor(tree, process);
        process->now.parent = ancestor != NULL ? ancestor->now.pid : 0;
        process->is_orphan = true;
    }
}

void smn_process_tree_forget(smn_process_tree *tree)
{
    size_t kept = 0;
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        process->is_there = process->is_there && !process->has_left;
        kept += process->is_there;
    }
    if (kept == tree->count)
        return;
    adopt_orphans(tree);
    memset(tree->buckets, 0, sizeof tree->buckets);
    kept = 0;
    for (size_t i = 0; i < tree->count; i++) {
        if (!tree->processes[i].is_there)
            continue;
        tree->processes[kept] = tree->processes[i];
        link_in(tree, kept++);
    }
    tree->count = kept;
}

/* ---- readings ----------------------------------------------------------- */

/* -ESRCH where there is no such process, or it is on its way out: one that was waited for. */
static int read_stat(const smn_process_tree *tree, int pid, smn_pid_stat *stat)
{
    char path[PATH_BYTES];
    char number[SMN_PATH_NUMBER_BYTES];
    smn_procfile file;
    SMN_PATH_JOIN(path, sizeof path, smn_path_number(number, (uint64_t)pid), "/stat");
    smn_procfile_init(&file, tree->procfs, path, tree->text);
    int error = smn_procfile_read_start(&file, SMN_PID_STAT_BYTES);
    if (error == 0)
        error = smn_scan_pid_stat(smn_procfile_text(&file), stat);
    smn_procfile_release(&file);
    if (error == -ENOENT || (error == 0 && (stat->state == 'X' || stat->state == 'x')))
        error = -ESRCH;
    if (error == 0 && stat->pid != pid)
        error = -EBADMSG;
    return error;
}

int smn_process_tree_read(smn_process_tree *tree)
{
    int first_error = 0;
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        smn_pid_stat seen;
        int error = read_stat(tree, process->now.pid, &seen);
        process->is_new = false;
        process->own_before = process->now.own_ticks;
        process->waited_before = process->now.waited_ticks;
        process->is_there = error != -ESRCH &&
                            (error != 0 || seen.start_ticks == process->now.start_ticks);
        if (!process->is_there)
            continue;
        if (error == 0) {
            process->now = seen;
            process->is_orphan = false;
        } else if (first_error == 0) {
            first_error = error;
        }
    }
    return first_error;
}

bool smn_process_tree_is_there(const smn_process_tree *tree, const smn_process *process)
{
    smn_pid_stat seen;
    int error = read_stat(tree, process->now.pid, &seen);
    return error == 0 ? seen.start_ticks == process->now.start_ticks : error != -ESRCH;
}

/* ---- the search --------------------------------------------------------- */

/* Takes in those of a list that are not members yet; they are read later, with the same buffer. */
static int add_children(smn_process_tree *tree, int folder, const char *path)
{
    smn_procfile file;
    smn_procfile_init(&file, folder, path, tree->text);
    int error = smn_procfile_read(&file);
    smn_cursor text = smn_procfile_text(&file);
    while (error == 0 && text.at != text.end && *text.at != '\n') {
        smn_pid_stat child = {0};
        error = smn_scan_pid(&text, &child.pid);
        smn_scan_spaces(&text);
        if (error == 0 && find(tree, child.pid) == NULL)
            error = add(tree, &child, false);
    }
    smn_procfile_release(&file);
    return error == -ENOENT || error == -ESRCH ? 0 : error; /* the thread has ended */
}

/* The lists of all its threads: each has the children that it made itself. */
static int add_children_of_threads(smn_process_tree *tree, const char *pid)
{
    char path[PATH_BYTES];
    smn_listing listing;
    int first_error = 0;
    SMN_PATH_JOIN(path, sizeof path, pid, "/task");
    int error = smn_listing_open(&listing, tree->procfs, path);
    if (error != 0)
        return error == -ENOENT || error == -ESRCH ? 0 : error;
    for (const char *tid; (tid = smn_listing_next(&listing)) != NULL;) {
        if (!SMN_PATH_JOIN(path, sizeof path, tid, "/children"))
            continue;
        error = add_children(tree, listing.fd, path);
        if (first_error == 0)
            first_error = error;
    }
    smn_listing_close(&listing);
    return first_error;
}

static int add_children_of(smn_process_tree *tree, const smn_pid_stat *parent)
{
    char path[PATH_BYTES];
    char number[SMN_PATH_NUMBER_BYTES];
    const char *pid = smn_path_number(number, (uint64_t)parent->pid);
    if (parent->threads > 1)
        return add_children_of_threads(tree, pid);
    SMN_PATH_JOIN(path, sizeof path, pid, "/task/", pid, "/children");
    return add_children(tree, tree->procfs, path);
}

/* Gives a new member what is known of it: it has a place, but was never read. */
static int meet(smn_process_tree *tree, smn_process *process)
{
    smn_pid_stat seen;
    int error = read_stat(tree, process->now.pid, &seen);
    if (error != 0)
        return error;
    process->now = seen;
    process->own_before = seen.own_ticks;
    process->waited_before = seen.waited_ticks;
    process->is_there = true;
    return 0;
}

/* New members come to the end of the list, so one way through it finds theirs, too. */
static int search_lists(smn_process_tree *tree)
{
    int first_error = 0;
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        int error = process->is_there ? 0 : meet(tree, process);
        if (process->is_there)
            error = add_children_of(tree, &process->now);
        if (error != 0 && error != -ESRCH && first_error == 0)
            first_error = error;
    }
    smn_process_tree_forget(tree); /* who ended before it was met */
    return first_error;
}

static int consider(smn_process_tree *tree, int pid)
{
    smn_pid_stat seen;
    if (find(tree, pid) != NULL || read_stat(tree, pid, &seen) != 0)
        return 0;
    const smn_process *parent = find(tree, seen.parent);
    if (parent == NULL || parent->now.start_ticks > seen.start_ticks)
        return 0;
    return add(tree, &seen, true);
}

/* Children are mostly behind their parents; one that is not is found the next time. */
static int search_everywhere(smn_process_tree *tree)
{
    smn_listing listing;
    int error = smn_listing_open(&listing, tree->procfs, ".");
    if (error != 0)
        return error;
    for (const char *name; error == 0 && (name = smn_listing_next(&listing)) != NULL;) {
        int pid = 0;
        for (; *name >= '0' && *name <= '9' && pid <= (INT_MAX - 9) / 10; name++)
            pid = pid * 10 + (*name - '0');
        if (*name == '\0' && pid > 0)
            error = consider(tree, pid);
    }
    smn_listing_close(&listing);
    return error;
}

static uint64_t now_ns(const smn_process_tree *tree)
{
    return tree->clock->monotonic_ns(tree->clock->context);
}

int smn_process_tree_search(smn_process_tree *tree)
{
    uint64_t start_ns = now_ns(tree);
    if (tree->is_alone || start_ns < tree->due_ns)
        return tree->search_error;
    tree->search_error = tree->has_children_files ? search_lists(tree) : search_everywhere(tree);
    uint64_t pause_ns = (now_ns(tree) - start_ns) * SEARCH_SHARE;
    uint64_t least_ns = tree->has_children_files ? SEARCH_PERIOD_NS : WALK_PERIOD_NS;
    if (pause_ns > SEARCH_LONGEST_PERIOD_NS)
        pause_ns = SEARCH_LONGEST_PERIOD_NS;
    tree->due_ns = start_ns + (pause_ns > least_ns ? pause_ns : least_ns);
    return tree->search_error;
}

/* ---- init and release --------------------------------------------------- */

static bool has_children_file(const smn_process_tree *tree, int pid)
{
    char path[PATH_BYTES];
    char number[SMN_PATH_NUMBER_BYTES];
    const char *name = smn_path_number(number, (uint64_t)pid);
    SMN_PATH_JOIN(path, sizeof path, name, "/task/", name, "/children");
    return faccessat(tree->procfs, path, F_OK, 0) == 0;
}

int smn_process_tree_init(smn_process_tree *tree, const smn_environment *environment)
{
    *tree = (smn_process_tree){
        .procfs = environment->procfs,
        .text = environment->text,
        .clock = environment->clock,
        .is_alone = environment->process_alone,
    };
    if (environment->pid <= 0)
        return -ENODATA;
    smn_pid_stat root;
    int error = read_stat(tree, environment->pid, &root);
    if (error != 0)
        return error == -ENOMEM ? error : -ENODATA;
    tree->processes = smn_reserve(PROCESSES_BYTES);
    if (tree->processes == NULL)
        return -ENOMEM;
    tree->has_children_files = has_children_file(tree, environment->pid);
    return add(tree, &root, true);
}

void smn_process_tree_release(smn_process_tree *tree)
{
    smn_unreserve(tree->processes, PROCESSES_BYTES);
    tree->processes = NULL;
    tree->count = 0;
}
