/* Kernel text files that stay open between readings. */
#ifndef SMN_PROCFILE_H
#define SMN_PROCFILE_H

#include <stddef.h>

#include "scan.h"

typedef struct {
    int root;         /* directory that path is relative to; not owned */
    const char *path; /* relative; must outlive the file */
    int fd;           /* -1 while the file is not there */
    char *data;
    size_t length;   /* bytes of the last reading */
    size_t reserved; /* address space behind data; memory arrives as it is touched */
} smn_procfile;

/*
 * Reserves room for a reading; the file itself is opened by the first one, and
 * opened again after it was gone. -ENOMEM.
 */
int smn_procfile_init(smn_procfile *file, int root, const char *path);

/* Reads the whole file. -EFBIG when it does not fit: never a part of it in silence. */
int smn_procfile_read(smn_procfile *file);

/* Reads at most the first `bytes` of it, in one call. */
int smn_procfile_read_start(smn_procfile *file, size_t bytes);

/* What the last reading got. */
smn_cursor smn_procfile_text(const smn_procfile *file);

void smn_procfile_release(smn_procfile *file);

#endif
