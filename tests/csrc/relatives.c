#include "relatives.h"

#include <stdio.h>
#include <unistd.h>

#include "check.h"

static unsigned long long wide(uint64_t number)
{
    return number;
}

void relative_write(const proc_tree *tree, const relative *it)
{
    char path[64];
    char text[1024];
    snprintf(path, sizeof path, "%d/stat", it->pid);
    snprintf(text, sizeof text,
             "%d (%s) %c %d 1 1 34816 -1 4194304 98 5 0 7 %llu %llu %llu %llu 20 -5 %llu 0 %llu "
             "%llu %llu 18446744073709551615 1 1 0 0 0 0 0 4096 17642 0 0 0 17 1 0 0 0 0 0\n",
             it->pid, it->name != NULL ? it->name : "python", it->state != 0 ? it->state : 'S',
             it->parent, wide(it->user), wide(it->system), wide(it->waited_user),
             wide(it->waited_system), wide(it->threads != 0 ? it->threads : 1),
             wide(it->start != 0 ? it->start : LONG_AGO), wide(it->virtual_bytes),
             wide(it->resident_pages));
    tree_write_text(tree, path, text);
}

void relative_have(const proc_tree *tree, int pid, int thread, const char *children)
{
    char path[64];
    snprintf(path, sizeof path, "%d/task/%d/children", pid, thread);
    tree_write_text(tree, path, children);
}

void relative_open_files(const proc_tree *tree, int pid, int count)
{
    char path[64];
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%d/fd/%d", pid, i);
        tree_write_text(tree, path, "");
    }
}

void relative_end(const proc_tree *tree, int pid)
{
    static int count;
    char name[32];
    char grave[32];
    snprintf(name, sizeof name, "%d", pid);
    snprintf(grave, sizeof grave, "ended-%d", count++);
    REQUIRE(renameat(tree->root, name, tree->root, grave) == 0);
}
