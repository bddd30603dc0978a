/*
 * Control groups: in which ones a process is, and what limits them, from its
 * own group up to the root of the mount. Version 1, version 2, and both beside
 * each other (cgroups(7), the kernel's Documentation/admin-guide/cgroup-v2.rst).
 */
#ifndef SMN_CGROUP_H
#define SMN_CGROUP_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "procfile.h"
#include "scan.h"

typedef enum {
    SMN_CGROUP_CPU,
    SMN_CGROUP_CPUACCT,
    SMN_CGROUP_CPUSET,
    SMN_CGROUP_MEMORY,
    SMN_CGROUP_CONTROLLERS
} smn_cgroup_controller;

typedef enum {
    SMN_CGROUP_QUOTA,      /* CPU time in each period: cores */
    SMN_CGROUP_CPUS,       /* CPUs that may be used: cores */
    SMN_CGROUP_MAX_MEMORY, /* bytes */
    SMN_CGROUP_LIMITS
} smn_cgroup_limit_kind;

/* ---- text: no I/O ------------------------------------------------------- */

/* The line of <pid>/cgroup that tells where a process is for one controller. */
typedef struct {
    int version; /* 1 or 2; 0: no line does */
    smn_cursor controllers;
    smn_cursor path; /* begins with a slash */
} smn_cgroup_line;

/* A controller that no hierarchy of version 1 has is that of version 2. -EBADMSG. */
int smn_cgroup_parse_lines(smn_cursor text, smn_cgroup_line lines[SMN_CGROUP_CONTROLLERS]);

/*
 * What files say of a limit: cores or bytes, INFINITY where they set none, or
 * -EBADMSG. The kernel lets neither quota nor period be shorter than 1 ms, nor
 * the period be longer than 1 s.
 */
int smn_cgroup_parse_cpu_max(smn_cursor text, double *cores);      /* "50000 100000" */
int smn_cgroup_parse_cfs_quota(smn_cursor text, double *quota_us); /* "-1" */
int smn_cgroup_parse_cfs_period(smn_cursor text, double *period_us);
int smn_cgroup_parse_bytes(smn_cursor text, double *bytes); /* "max" */

/* How many there are in a list of CPUs: "0-3,8". An empty list is one, too. */
int smn_cgroup_parse_cpu_list(smn_cursor text, uint32_t *count);

/* The number behind a key, which ends with a blank, at the start of a line. -ENODATA: no such. */
int smn_cgroup_parse_field(smn_cursor text, const char *key, uint64_t *value);

/* ---- the machine -------------------------------------------------------- */

/* What no limit can be above; 0: not known. */
typedef struct {
    double cpus; /* that are online */
    double memory_bytes;
} smn_cgroup_machine;

void smn_cgroup_read_machine(smn_cgroup_machine *machine, int procfs, int sysfs,
                             smn_text_buffer *text);

/* ---- places ------------------------------------------------------------- */

/* The group of a process for one controller. */
typedef struct {
    int version;     /* 0: none that can be seen */
    int error;       /* why */
    bool is_outside; /* of our control group namespace */
    size_t mount_length;
    char path[PATH_MAX]; /* from sysfs on; the first part of it is the mount's */
} smn_cgroup_place;

/*
 * Finds the groups of the process whose <pid>/cgroup that is, below fs/cgroup
 * of sysfs. Where the mount begins further down than the path, as in a container
 * that has no namespace of its own, what is above is left out. The mount of
 * another container is seen in its root folder (proc(5): "root" of a process): it
 * begins with the group of `pid`, a process by the number that it has here, whose
 * lines name a group beside ours. 0: no such number is known.
 */
int smn_cgroup_find_places(smn_procfile *lines, int sysfs, int pid,
                           smn_cgroup_place places[SMN_CGROUP_CONTROLLERS]);

/* ---- limits ------------------------------------------------------------- */

/* The files of one group that set a limit, open between readings. */
typedef struct {
    smn_cgroup_limit_kind kind;
    int version;
    smn_procfile files[2];
} smn_cgroup_limit_files;

/* `folder` is that of the group, and not owned. */
void smn_cgroup_limit_init(smn_cgroup_limit_files *files, smn_cgroup_limit_kind kind, int version,
                           int folder, smn_text_buffer *text);
void smn_cgroup_limit_release(smn_cgroup_limit_files *files);

/* INFINITY where the group has none, or none that can be reached on this machine. */
int smn_cgroup_limit_read(smn_cgroup_limit_files *files, const smn_cgroup_machine *machine,
                          double *limit);

typedef struct {
    double value;  /* INFINITY: nothing limits */
    size_t length; /* of the path of the group that carries it */
} smn_cgroup_limit;

smn_cgroup_controller smn_cgroup_controller_of(smn_cgroup_limit_kind kind);

/*
 * The tightest limit on the way up. Of equal ones that which is nearest to the
 * process; but CPUs are inherited, and there it is the one that all others have
 * it from. What cannot be read makes it unknown: a negative errno.
 */
int smn_cgroup_find_tightest(const smn_cgroup_place *place, smn_cgroup_limit_kind kind,
                             const smn_cgroup_machine *machine, int sysfs, smn_text_buffer *text,
                             smn_cgroup_limit *limit);

/* Opens the folder of the first `length` bytes of the path: a descriptor, or a negative errno. */
int smn_cgroup_open_folder(const smn_cgroup_place *place, size_t length, int sysfs);

#endif
