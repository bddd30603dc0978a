/* A temporary folder that stands in for /proc. */
#ifndef TREE_H
#define TREE_H

#include <limits.h>
#include <stddef.h>

typedef struct {
    char path[PATH_MAX];
    int root; /* the folder, open */
} proc_tree;

void tree_create(proc_tree *tree);

/* Removes it with all that is in it. */
void tree_destroy(proc_tree *tree);

/*
 * Gives the file `name` this content, in place: whoever holds it open sees it,
 * as with a file of the kernel. Folders on the way are made.
 */
void tree_write(const proc_tree *tree, const char *name, const void *bytes, size_t length);
void tree_write_text(const proc_tree *tree, const char *name, const char *text);

/* A file, FIFO, link or empty folder; there or not. */
void tree_remove(const proc_tree *tree, const char *name);

#endif
