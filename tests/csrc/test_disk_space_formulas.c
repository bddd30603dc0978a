/*
 * The source `disk_space` on file systems that no machine has: statvfs(3) is
 * defined here, so that the linker takes this one.
 */
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "check.h"
#include "probe.h"

static struct statvfs answer;
static int answer_errno;

int statvfs(const char *path, struct statvfs *space)
{
    (void)path;
    errno = answer_errno;
    if (answer_errno != 0)
        return -1;
    *space = answer;
    return 0;
}

/* The same formulas, whichever thread reads. */
static const char *const root_mounts[] = {
    "22 1 254:0 / / rw - ext4 /dev/vda rw\n",
    "22 1 254:0 / / rw - nfs server:/ rw\n",
};

static void open_root(source_probe *probe, proc_tree *tree, const char *mounts)
{
    tree_create(tree);
    tree_write_text(tree, "self/mountinfo", mounts);
    probe_open(probe, "disk_space", tree);
}

static void close_root(source_probe *probe, proc_tree *tree)
{
    probe_close(probe);
    tree_destroy(tree);
}

static void test_formulas(const char *mounts)
{
    static const struct {
        const char *what;
        struct statvfs space;
        int error;
        double used_bytes;
        double available_bytes;
        double percentage;
    } cases[] = {
        {"plain",
         {.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1000, .f_bfree = 250, .f_bavail = 250},
         0,
         750 * 4096.0,
         250 * 4096.0,
         75.0},
        {"blocks kept for root are neither used nor to be had",
         {.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1000, .f_bfree = 400, .f_bavail = 200},
         0,
         600 * 4096.0,
         200 * 4096.0,
         75.0},
        {"counted in fragments, not in blocks",
         {.f_bsize = 1 << 20, .f_frsize = 512, .f_blocks = 8, .f_bfree = 6, .f_bavail = 6},
         0,
         1024.0,
         3072.0,
         25.0},
        {"without a fragment size",
         {.f_bsize = 4096, .f_frsize = 0, .f_blocks = 8, .f_bfree = 6, .f_bavail = 6},
         0,
         8192.0,
         24576.0,
         25.0},
        {"empty",
         {.f_bsize = 1, .f_frsize = 1, .f_blocks = 8, .f_bfree = 8, .f_bavail = 8},
         0,
         0.0,
         8.0,
         0.0},
        {"full",
         {.f_bsize = 1, .f_frsize = 1, .f_blocks = 8, .f_bfree = 0, .f_bavail = 0},
         0,
         8.0,
         0.0,
         100.0},
        {"full for everybody but root",
         {.f_bsize = 1, .f_frsize = 1, .f_blocks = 8, .f_bfree = 2, .f_bavail = 0},
         0,
         6.0,
         0.0,
         100.0},
        {"empty, and all of it root's",
         {.f_bsize = 1, .f_frsize = 1, .f_blocks = 8, .f_bfree = 8, .f_bavail = 0},
         0,
         0.0,
         0.0,
         CHECK_NAN},
        {"a zebibyte",
         {.f_bsize = 1 << 20,
          .f_frsize = 1 << 20,
          .f_blocks = UINT64_C(1) << 50,
          .f_bfree = UINT64_C(1) << 49,
          .f_bavail = UINT64_C(1) << 49},
         0,
         0x1p69,
         0x1p69,
         50.0},
        {"no blocks",
         {.f_bsize = 4096, .f_frsize = 4096},
         -ENODATA,
         CHECK_NAN,
         CHECK_NAN,
         CHECK_NAN},
        {"more free than there is",
         {.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 8, .f_bfree = 9, .f_bavail = 8},
         -ENODATA,
         CHECK_NAN,
         CHECK_NAN,
         CHECK_NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        proc_tree tree;
        source_probe probe;
        answer = cases[i].space;
        open_root(&probe, &tree, mounts);
        CHECK_INT(probe_sample(&probe), cases[i].error);
        double used = probe_value(&probe, "disk_usage_megabytes");
        double available = probe_value(&probe, "disk_available_megabytes");
        CHECK_NEAR(used, cases[i].used_bytes / 1e6, cases[i].used_bytes * 1e-20);
        CHECK_NEAR(available, cases[i].available_bytes / 1e6, cases[i].available_bytes * 1e-20);
        CHECK_DOUBLE(probe_value(&probe, "disk_usage_percentage"), cases[i].percentage);
        close_root(&probe, &tree);
    }
    check_case(NULL);
}

/* Whatever goes wrong is a failure of this reading, not of the next. */
static void test_failures(void)
{
    static const int failures[] = {ENOENT, EACCES, ESTALE, EIO, EINTR, EOVERFLOW, ENOTCONN};
    proc_tree tree;
    source_probe probe;
    open_root(&probe, &tree, root_mounts[0]);
    answer = (struct statvfs){
        .f_bsize = 1, .f_frsize = 1, .f_blocks = 100, .f_bfree = 25, .f_bavail = 25};
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        answer_errno = failures[i];
        CHECK_INT(probe_sample(&probe), -failures[i]);
        CHECK_ABSENT(probe_value(&probe, "disk_usage_percentage"));
        CHECK_ABSENT(probe_value(&probe, "disk_usage_megabytes"));
        CHECK_ABSENT(probe_value(&probe, "disk_available_megabytes"));
        answer_errno = 0;
        CHECK_INT(probe_sample(&probe), 0);
        CHECK_DOUBLE(probe_value(&probe, "disk_usage_percentage"), 75.0);
    }
    close_root(&probe, &tree);
}

int main(void)
{
    for (size_t i = 0; i < sizeof root_mounts / sizeof *root_mounts; i++)
        test_formulas(root_mounts[i]);
    test_failures();
    return check_report();
}
