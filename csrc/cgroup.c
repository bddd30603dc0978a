#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "path.h"

/* ---- text --------------------------------------------------------------- */

static const char *const controllers[SMN_CGROUP_CONTROLLERS] = {
    [SMN_CGROUP_CPU] = "cpu",
    [SMN_CGROUP_CPUACCT] = "cpuacct",
    [SMN_CGROUP_CPUSET] = "cpuset",
    [SMN_CGROUP_MEMORY] = "memory",
};

static const uint64_t SHORTEST_US = 1000;
static const uint64_t LONGEST_PERIOD_US = 1000000;

/* No limit of version 1 is the largest number of pages there is, whatever their size. */
static const uint64_t NO_LIMIT_BYTES = UINT64_C(1) << 62;

enum {
    MOST_CPU = 1 << 20, /* far beyond what a kernel can be built for */
    NUMBERS_BYTES = 64  /* of a file that has two numbers at most */
};

static size_t length_of(smn_cursor text)
{
    return (size_t)(text.end - text.at);
}

/* Splits off what is before the mark, which is dropped. */
static bool split(smn_cursor *text, char mark, smn_cursor *before)
{
    const char *found = memchr(text->at, mark, length_of(*text));
    if (found == NULL)
        return false;
    *before = (smn_cursor){text->at, found};
    text->at = found + 1;
    return true;
}

static bool is_listed(smn_cursor list, const char *name)
{
    smn_cursor one;
    size_t length = strlen(name);
    for (bool is_last = false; !is_last;) {
        is_last = !split(&list, ',', &one);
        if (is_last)
            one = list;
        if (length_of(one) == length && memcmp(one.at, name, length) == 0)
            return true;
    }
    return false;
}

/* "4:cpu,cpuacct:/docker/f00": the path may contain anything, colons included. */
static int parse_line(smn_cursor line, smn_cgroup_line lines[SMN_CGROUP_CONTROLLERS])
{
    smn_cursor number;
    smn_cursor list;
    line.end--; /* the newline */
    if (!split(&line, ':', &number) || !split(&line, ':', &list) || length_of(number) == 0)
        return -EBADMSG;
    if (length_of(line) == 0 || *line.at != '/' || memchr(line.at, '\0', length_of(line)) != NULL)
        return -EBADMSG;
    bool is_second = length_of(number) == 1 && *number.at == '0' && length_of(list) == 0;
    for (int i = 0; i < SMN_CGROUP_CONTROLLERS; i++) {
        if (is_second ? lines[i].version == 0 : is_listed(list, controllers[i]))
            lines[i] = (smn_cgroup_line){is_second ? 2 : 1, list, line};
    }
    return 0;
}

int smn_cgroup_parse_lines(smn_cursor text, smn_cgroup_line lines[SMN_CGROUP_CONTROLLERS])
{
    smn_cursor line;
    int error = 0;
    for (int i = 0; i < SMN_CGROUP_CONTROLLERS; i++)
        lines[i] = (smn_cgroup_line){0};
    while (error == 0 && smn_scan_line(&text, &line))
        error = parse_line(line, lines);
    return error == 0 && text.at != text.end ? -EBADMSG : error;
}

static bool at_end_of_line(smn_cursor text)
{
    return text.at < text.end && *text.at == '\n';
}

/* A number with nothing behind it. */
static int parse_only_number(smn_cursor text, uint64_t *number)
{
    int error = smn_scan_u64(&text, number);
    return error == 0 && !at_end_of_line(text) ? -EBADMSG : error;
}

int smn_cgroup_parse_cfs_period(smn_cursor text, double *period_us)
{
    uint64_t number;
    int error = parse_only_number(text, &number);
    if (error == 0 && (number < SHORTEST_US || number > LONGEST_PERIOD_US))
        error = -EBADMSG;
    if (error == 0)
        *period_us = (double)number;
    return error;
}

static int take_quota(smn_cursor *text, const char *none, double *quota_us)
{
    uint64_t number;
    if (smn_scan_key(text, none)) {
        *quota_us = INFINITY;
        return 0;
    }
    int error = smn_scan_u64(text, &number);
    if (error == 0 && number < SHORTEST_US)
        error = -EBADMSG;
    if (error == 0)
        *quota_us = (double)number;
    return error;
}

int smn_cgroup_parse_cfs_quota(smn_cursor text, double *quota_us)
{
    double quota;
    int error = take_quota(&text, "-1", &quota);
    if (error == 0 && !at_end_of_line(text))
        error = -EBADMSG;
    if (error == 0)
        *quota_us = quota;
    return error;
}

int smn_cgroup_parse_cpu_max(smn_cursor text, double *cores)
{
    double quota_us;
    double period_us;
    int error = take_quota(&text, "max", &quota_us);
    if (error == 0 && (text.at == text.end || *text.at != ' '))
        error = -EBADMSG;
    if (error == 0)
        error = smn_cgroup_parse_cfs_period(text, &period_us);
    if (error == 0)
        *cores = quota_us / period_us;
    return error;
}

int smn_cgroup_parse_bytes(smn_cursor text, double *bytes)
{
    uint64_t number = NO_LIMIT_BYTES;
    int error = 0;
    if (!smn_scan_key(&text, "max"))
        error = smn_scan_u64(&text, &number);
    if (error == 0 && (number == 0 || !at_end_of_line(text)))
        error = -EBADMSG;
    if (error == 0)
        *bytes = number >= NO_LIMIT_BYTES ? INFINITY : (double)number;
    return error;
}

static int take_cpu(smn_cursor *text, uint32_t *cpu)
{
    uint32_t number = 0;
    const char *digits = text->at;
    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        number = number * 10 + (uint32_t)(*text->at - '0');
        if (number > MOST_CPU)
            return -EBADMSG;
    }
    *cpu = number;
    return text->at == digits || text->at == text->end ? -EBADMSG : 0;
}

int smn_cgroup_parse_cpu_list(smn_cursor text, uint32_t *count)
{
    uint32_t sum = 0;
    uint32_t least = 0; /* the kernel sorts them */
    while (!at_end_of_line(text) || least > 0) {
        uint32_t first;
        uint32_t last;
        int error = take_cpu(&text, &first);
        last = first;
        if (error == 0 && smn_scan_key(&text, "-"))
            error = take_cpu(&text, &last);
        if (error != 0 || first < least || last < first)
            return -EBADMSG;
        sum += last - first + 1;
        least = last + 1;
        if (at_end_of_line(text))
            break;
        if (!smn_scan_key(&text, ","))
            return -EBADMSG;
    }
    *count = sum;
    return 0;
}

int smn_cgroup_parse_field(smn_cursor text, const char *key, uint64_t *value)
{
    smn_cursor line;
    while (smn_scan_line(&text, &line)) {
        if (smn_scan_key(&line, key))
            return parse_only_number(line, value);
    }
    return text.at == text.end ? -ENODATA : -EBADMSG;
}

/* ---- the machine -------------------------------------------------------- */

/* Reads the whole file, once. */
static int read_once(int root, const char *path, smn_text_buffer *buffer, smn_cursor *text)
{
    smn_procfile file;
    smn_procfile_init(&file, root, path, buffer);
    int error = smn_procfile_read(&file);
    *text = smn_procfile_text(&file);
    smn_procfile_release(&file);
    return error;
}

/* The lines "cpu0 …", "cpu1 …" of /proc/stat. */
static uint32_t count_cpu_lines(smn_cursor text)
{
    smn_cursor line;
    uint32_t count = 0;
    while (smn_scan_line(&text, &line)) {
        if (smn_scan_key(&line, "cpu"))
            count += *line.at >= '0' && *line.at <= '9';
    }
    return count;
}

static uint32_t count_online(int procfs, int sysfs, smn_text_buffer *buffer)
{
    smn_cursor text;
    uint32_t count = 0;
    if (read_once(sysfs, "devices/system/cpu/online", buffer, &text) == 0 &&
        smn_cgroup_parse_cpu_list(text, &count) == 0 && count > 0)
        return count;
    return read_once(procfs, "stat", buffer, &text) == 0 ? count_cpu_lines(text) : 0;
}

void smn_cgroup_read_machine(smn_cgroup_machine *machine, int procfs, int sysfs,
                             smn_text_buffer *buffer)
{
    smn_cursor text;
    smn_cursor line;
    uint64_t kib;
    *machine = (smn_cgroup_machine){.cpus = count_online(procfs, sysfs, buffer)};
    if (read_once(procfs, "meminfo", buffer, &text) != 0)
        return;
    while (smn_scan_line(&text, &line)) {
        if (!smn_scan_key(&line, "MemTotal:"))
            continue;
        if (smn_scan_u64(&line, &kib) == 0)
            machine->memory_bytes = (double)kib * 1024.0;
        return;
    }
}

/* ---- places ------------------------------------------------------------- */

static bool exists(int sysfs, const char *path)
{
    return faccessat(sysfs, path, F_OK, 0) == 0;
}

/* Puts the folder of the mount into the place. */
static bool is_mount(smn_cgroup_place *place, int sysfs, const char *name, const char *entry)
{
    if (!SMN_PATH_JOIN(place->path, sizeof place->path, "fs/cgroup", name, entry) ||
        !exists(sysfs, place->path))
        return false;
    place->mount_length = strlen("fs/cgroup") + strlen(name);
    place->path[place->mount_length] = '\0';
    return true;
}

static bool find_second(smn_cgroup_place *place, int sysfs)
{
    return is_mount(place, sysfs, "", "/cgroup.controllers") ||
           is_mount(place, sysfs, "/unified", "/cgroup.controllers");
}

/*
 * Usually there is a link with the name of each controller. The kernel may name
 * those of one hierarchy in another order than the mount does.
 */
static bool find_first(smn_cgroup_place *place, int sysfs, const char *controller, smn_cursor list)
{
    char name[NAME_MAX + 1] = "/";
    if (SMN_PATH_JOIN(name, sizeof name, "/", controller) && is_mount(place, sysfs, name, ""))
        return true;
    if (length_of(list) + 2 <= sizeof name && memchr(list.at, '/', length_of(list)) == NULL) {
        memcpy(name + 1, list.at, length_of(list));
        name[1 + length_of(list)] = '\0';
        if (is_mount(place, sysfs, name, ""))
            return true;
    }
    return is_listed(list, "cpu") && is_listed(list, "cpuacct") &&
           is_mount(place, sysfs, "/cpu,cpuacct", "");
}

/* Takes a leading "/.." off: such a group is beside or above our own namespace. */
static bool drop_parent(smn_cursor *path)
{
    if (length_of(*path) < 3 || memcmp(path->at, "/..", 3) != 0 ||
        (length_of(*path) > 3 && path->at[3] != '/'))
        return false;
    path->at += 3;
    return true;
}

static bool has_parent(smn_cursor path)
{
    for (; path.at < path.end; path.at++) {
        smn_cursor rest = path;
        if (drop_parent(&rest))
            return true;
    }
    return false;
}

static bool ends_with(smn_cursor text, const char *end)
{
    size_t length = strlen(end);
    return length_of(text) >= length && memcmp(text.end - length, end, length) == 0;
}

/* Puts so much of the path behind that of the mount; whether there is such a folder. */
static bool is_below(smn_cgroup_place *place, int sysfs, smn_cursor path, size_t length)
{
    memcpy(place->path + place->mount_length, path.at, length);
    place->path[place->mount_length + length] = '\0';
    return exists(sysfs, place->path);
}

/* Of the first name: "/docker" of "/docker/f00". */
static size_t first_length(smn_cursor path)
{
    const char *next = memchr(path.at + 1, '/', length_of(path) - 1);
    return next != NULL ? (size_t)(next - path.at) : length_of(path);
}

/*
 * Where the mount has the path's first folder, it has all of it, or the group is
 * gone. Where it has not, it begins further down, perhaps in the group itself.
 * A group outside of our namespace is found only where the mount shows more than
 * the namespace does, or is that group's own: what limits ours does not limit
 * that.
 */
static int find_below(smn_cgroup_place *place, int sysfs, smn_cursor path)
{
    bool is_outside = false;
    while (drop_parent(&path))
        is_outside = true;
    place->is_outside = is_outside;
    if (has_parent(path))
        return -EBADMSG;
    if (ends_with(path, " (deleted)"))
        return -ENOENT;
    if (length_of(path) >= sizeof place->path - place->mount_length)
        return -ENAMETOOLONG;
    while (length_of(path) > 1) {
        if (is_below(place, sysfs, path, first_length(path)))
            return is_below(place, sysfs, path, length_of(path)) ? 0 : -ENOENT;
        if (is_outside)
            return -ENOENT;
        path.at += first_length(path);
    }
    place->path[place->mount_length] = '\0';
    return is_outside ? -ENOENT : 0;
}

static void find_place(smn_cgroup_place *place, int sysfs, const char *controller,
                       const smn_cgroup_line *line)
{
    place->version = 0;
    place->error = 0;
    place->is_outside = false;
    bool is_mounted = line->version == 2
                          ? find_second(place, sysfs)
                          : line->version == 1 &&
                                find_first(place, sysfs, controller, line->controllers);
    if (!is_mounted)
        return;
    place->error = find_below(place, sysfs, line->path);
    if (place->error == 0)
        place->version = line->version;
}

/* Whether the group that the mount begins with has the process, as its own file says. */
static bool begins_with_group_of(smn_cgroup_place *place, int sysfs, int pid,
                                 smn_text_buffer *buffer)
{
    static const char name[] = "/cgroup.procs";
    smn_cursor text;
    smn_cursor line;
    uint64_t number;
    if (sizeof name > sizeof place->path - place->mount_length)
        return false;
    memcpy(place->path + place->mount_length, name, sizeof name);
    int error = read_once(sysfs, place->path, buffer, &text);
    place->path[place->mount_length] = '\0';
    while (error == 0 && smn_scan_line(&text, &line)) {
        if (parse_only_number(line, &number) == 0 && number == (uint64_t)pid)
            return true;
    }
    return false;
}

int smn_cgroup_find_places(smn_procfile *file, int sysfs, int pid,
                           smn_cgroup_place places[SMN_CGROUP_CONTROLLERS])
{
    smn_cgroup_line lines[SMN_CGROUP_CONTROLLERS];
    int error = smn_procfile_read(file);
    if (error == 0)
        error = smn_cgroup_parse_lines(smn_procfile_text(file), lines);
    for (int i = 0; i < SMN_CGROUP_CONTROLLERS && error == 0; i++)
        find_place(&places[i], sysfs, controllers[i], &lines[i]);
    /* Only now: what this reads takes the place of the lines' text. */
    for (int i = 0; i < SMN_CGROUP_CONTROLLERS && error == 0 && pid > 0; i++) {
        if (places[i].is_outside && places[i].error == -ENOENT &&
            begins_with_group_of(&places[i], sysfs, pid, file->buffer)) {
            places[i].error = 0;
            places[i].version = lines[i].version;
        }
    }
    return error;
}

/* ---- limits ------------------------------------------------------------- */

/* By version. Of two files of a list of CPUs the second is that of old kernels. */
static const char *const limit_files[SMN_CGROUP_LIMITS][2][2] = {
    [SMN_CGROUP_QUOTA] = {{"cpu.cfs_quota_us", "cpu.cfs_period_us"}, {"cpu.max", NULL}},
    [SMN_CGROUP_CPUS] = {{"cpuset.effective_cpus", "cpuset.cpus"}, {"cpuset.cpus.effective", NULL}},
    [SMN_CGROUP_MAX_MEMORY] = {{"memory.limit_in_bytes", NULL}, {"memory.max", NULL}},
};

smn_cgroup_controller smn_cgroup_controller_of(smn_cgroup_limit_kind kind)
{
    static const smn_cgroup_controller of[SMN_CGROUP_LIMITS] = {
        [SMN_CGROUP_QUOTA] = SMN_CGROUP_CPU,
        [SMN_CGROUP_CPUS] = SMN_CGROUP_CPUSET,
        [SMN_CGROUP_MAX_MEMORY] = SMN_CGROUP_MEMORY,
    };
    return of[kind];
}

void smn_cgroup_limit_init(smn_cgroup_limit_files *files, smn_cgroup_limit_kind kind, int version,
                           int folder, smn_text_buffer *text)
{
    files->kind = kind;
    files->version = version;
    for (int i = 0; i < 2; i++)
        smn_procfile_init(&files->files[i], folder, limit_files[kind][version - 1][i], text);
}

void smn_cgroup_limit_release(smn_cgroup_limit_files *files)
{
    for (int i = 0; i < 2; i++)
        smn_procfile_release(&files->files[i]);
}

/* The real root, and a group without the controller, have no such file. */
static bool is_missing(int error)
{
    return error == -ENOENT || error == -EACCES || error == -EPERM || error == -EOPNOTSUPP;
}

static int read_quota(smn_cgroup_limit_files *files, double *cores)
{
    double quota_us;
    double period_us;
    int error = smn_procfile_read_start(&files->files[0], NUMBERS_BYTES);
    if (error == 0 && files->version == 2)
        return smn_cgroup_parse_cpu_max(smn_procfile_text(&files->files[0]), cores);
    if (error == 0)
        error = smn_cgroup_parse_cfs_quota(smn_procfile_text(&files->files[0]), &quota_us);
    if (error == 0)
        error = smn_procfile_read_start(&files->files[1], NUMBERS_BYTES);
    if (error == 0)
        error = smn_cgroup_parse_cfs_period(smn_procfile_text(&files->files[1]), &period_us);
    if (error == 0)
        *cores = quota_us / period_us;
    return error;
}

static int read_cpus(smn_cgroup_limit_files *files, double *cores)
{
    uint32_t count;
    smn_procfile *file = &files->files[0];
    int error = smn_procfile_read(file);
    if (error == -ENOENT && files->version == 1) {
        file = &files->files[1];
        error = smn_procfile_read(file);
    }
    if (error == 0)
        error = smn_cgroup_parse_cpu_list(smn_procfile_text(file), &count);
    if (error == 0)
        *cores = count > 0 ? (double)count : INFINITY;
    return error;
}

static int read_bytes(smn_cgroup_limit_files *files, double *bytes)
{
    int error = smn_procfile_read_start(&files->files[0], NUMBERS_BYTES);
    return error != 0 ? error : smn_cgroup_parse_bytes(smn_procfile_text(&files->files[0]), bytes);
}

/* A list that has all CPUs, and a limit that the machine is below of, limit nothing. */
static bool is_reached(smn_cgroup_limit_kind kind, const smn_cgroup_machine *machine, double limit)
{
    if (kind == SMN_CGROUP_MAX_MEMORY)
        return machine->memory_bytes == 0.0 || limit < machine->memory_bytes;
    if (kind == SMN_CGROUP_QUOTA)
        return machine->cpus == 0.0 || limit <= machine->cpus;
    return limit < machine->cpus;
}

int smn_cgroup_limit_read(smn_cgroup_limit_files *files, const smn_cgroup_machine *machine,
                          double *limit)
{
    static int (*const readers[SMN_CGROUP_LIMITS])(smn_cgroup_limit_files *, double *) = {
        [SMN_CGROUP_QUOTA] = read_quota,
        [SMN_CGROUP_CPUS] = read_cpus,
        [SMN_CGROUP_MAX_MEMORY] = read_bytes,
    };
    *limit = INFINITY;
    int error = readers[files->kind](files, limit);
    if (error == 0 && !is_reached(files->kind, machine, *limit))
        *limit = INFINITY;
    return is_missing(error) ? 0 : error;
}

/* The first `length` bytes of path, which are its only ones from then on. */
static int open_start(char *path, size_t length, int sysfs)
{
    path[length] = '\0';
    int folder = openat(sysfs, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return folder >= 0 ? folder : -errno;
}

int smn_cgroup_open_folder(const smn_cgroup_place *place, size_t length, int sysfs)
{
    char path[PATH_MAX];
    memcpy(path, place->path, length);
    return open_start(path, length, sysfs);
}

/* The limit of one group; path ends behind `length` afterwards. */
static int read_level(char *path, size_t length, smn_cgroup_limit_kind kind, int version,
                      const smn_cgroup_machine *machine, int sysfs, smn_text_buffer *text,
                      double *limit)
{
    smn_cgroup_limit_files files;
    int folder = open_start(path, length, sysfs);
    if (folder < 0)
        return folder;
    smn_cgroup_limit_init(&files, kind, version, folder, text);
    int error = smn_cgroup_limit_read(&files, machine, limit);
    smn_cgroup_limit_release(&files);
    close(folder);
    return error;
}

int smn_cgroup_find_tightest(const smn_cgroup_place *place, smn_cgroup_limit_kind kind,
                             const smn_cgroup_machine *machine, int sysfs, smn_text_buffer *text,
                             smn_cgroup_limit *limit)
{
    char path[PATH_MAX];
    size_t length = strlen(place->path);
    *limit = (smn_cgroup_limit){INFINITY, length};
    if (place->version == 0)
        return place->error;
    memcpy(path, place->path, length + 1);
    for (;;) {
        double here;
        int error = read_level(path, length, kind, place->version, machine, sysfs, text, &here);
        if (error != 0)
            return error;
        if (here < limit->value || (kind == SMN_CGROUP_CPUS && here == limit->value))
            *limit = (smn_cgroup_limit){here, length};
        if (length <= place->mount_length)
            return 0;
        do
            length--;
        while (path[length] != '/');
    }
}
