/* Kernel text files that stay open between readings. */
#ifndef SMN_PROCFILE_H
#define SMN_PROCFILE_H

#include <stddef.h>

#include "scan.h"

/*
 * Where readings go. All files of a sampler share one, because a reading is
 * parsed before the next is made: so it stays in the caches, and address space,
 * which clusters like to limit, is taken once.
 */
typedef struct {
    char *data;
    size_t reserved; /* address space; memory arrives as it is touched */
} smn_text_buffer;

/* -ENOMEM. */
int smn_text_buffer_init(smn_text_buffer *buffer);
void smn_text_buffer_release(smn_text_buffer *buffer);

typedef struct {
    int root;         /* directory that path is relative to; not owned */
    const char *path; /* relative; must outlive the file */
    int fd;           /* -1 while the file is not there */
    smn_text_buffer *buffer;
    size_t length; /* bytes of the last reading */
} smn_procfile;

/* The file itself is opened by the first reading, and opened again after it was gone. */
void smn_procfile_init(smn_procfile *file, int root, const char *path, smn_text_buffer *buffer);

/* Reads the whole file. -EFBIG when it does not fit: never a part of it in silence. */
int smn_procfile_read(smn_procfile *file);

/* Reads at most the first `bytes` of it, in one call. */
int smn_procfile_read_start(smn_procfile *file, size_t bytes);

/* What the last reading got; good until the next one of any file with the same buffer. */
smn_cursor smn_procfile_text(const smn_procfile *file);

void smn_procfile_release(smn_procfile *file);

#endif
