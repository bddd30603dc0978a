/*
 * 36 35 98:0 / /data rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue
 *
 * self/mountinfo (proc_pid_mountinfo(5)) tells of which type the file systems
 * are that a path leads through, without touching any of them. That matters
 * because whoever touches one of a network whose server is gone may never come
 * back.
 */
#ifndef SMN_MOUNTS_H
#define SMN_MOUNTS_H

#include <stdbool.h>

#include "procfile.h"

typedef struct {
    smn_procfile file;
} smn_mounts;

void smn_mounts_init(smn_mounts *mounts, int procfs, smn_text_buffer *text);
void smn_mounts_release(smn_mounts *mounts);

/* Reads the table. */
int smn_mounts_read(smn_mounts *mounts);

/* Whether something was mounted or unmounted since the last reading, or that cannot be known. */
bool smn_mounts_have_changed(const smn_mounts *mounts);

/*
 * Whether all file systems on the way to an absolute path are of this machine,
 * so that whoever asks for their space is answered at once. As of the last
 * reading, which must be the last one into its buffer. False where it cannot be
 * known: a link is not followed, because it may lead anywhere.
 */
bool smn_mounts_lead_locally(const smn_mounts *mounts, const char *path);

#endif
