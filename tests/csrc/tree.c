#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

void tree_create(proc_tree *tree)
{
    const char *parent = getenv("TMPDIR");
    if (parent == NULL || *parent == '\0')
        parent = "/tmp";
    int length = snprintf(tree->path, sizeof tree->path, "%s/sysmetrics-test-XXXXXX", parent);
    REQUIRE(length > 0 && (size_t)length < sizeof tree->path);
    REQUIRE(mkdtemp(tree->path) != NULL);
    tree->root = open(tree->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(tree->root >= 0);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

void tree_destroy(proc_tree *tree)
{
    close(tree->root);
    REQUIRE(nftw(tree->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

static void make_folders(const proc_tree *tree, const char *name)
{
    char folder[PATH_MAX];
    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t length = (size_t)(slash - name);
        REQUIRE(length < sizeof folder);
        memcpy(folder, name, length);
        folder[length] = '\0';
        REQUIRE(mkdirat(tree->root, folder, 0755) == 0 || errno == EEXIST);
    }
}

void tree_write(const proc_tree *tree, const char *name, const void *bytes, size_t length)
{
    make_folders(tree, name);
    int fd = openat(tree->root, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0);
    for (size_t done = 0; done < length;) {
        ssize_t written = pwrite(fd, (const char *)bytes + done, length - done, (off_t)done);
        REQUIRE(written > 0);
        done += (size_t)written;
    }
    /* Cut afterwards: a file that is first emptied and then written is slow on ext4. */
    REQUIRE(ftruncate(fd, (off_t)length) == 0);
    close(fd);
}

void tree_write_text(const proc_tree *tree, const char *name, const char *text)
{
    tree_write(tree, name, text, strlen(text));
}

void tree_remove(const proc_tree *tree, const char *name)
{
    REQUIRE(unlinkat(tree->root, name, 0) == 0 || errno == ENOENT || errno == EISDIR ||
            errno == EPERM);
    REQUIRE(unlinkat(tree->root, name, AT_REMOVEDIR) == 0 || errno == ENOENT || errno == ENOTDIR);
}
