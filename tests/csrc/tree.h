/* A temporary folder that stands in for /proc. */
#ifndef TREE_H
#define TREE_H

#include <limits.h>
#include <stddef.h>

typedef struct {
    char path[PATH_MAX];
    int root; /* the folder, open */
} tree;

void tree_create(tree *tree);

/* Removes it with all that is in it. */
void tree_destroy(tree *tree);

/*
 * Gives the file `name` this content, in place: whoever holds it open sees it,
 * as with a file of the kernel. Folders on the way are made.
 */
void tree_write(const tree *tree, const char *name, const void *bytes, size_t length);
void tree_write_text(const tree *tree, const char *name, const char *text);

/* A file, FIFO, link or empty folder; there or not. */
void tree_remove(const tree *tree, const char *name);

#endif
