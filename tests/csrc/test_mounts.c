/* Which paths lead through file systems of this machine alone, by made-up tables of mounts. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "mounts.h"
#include "tree.h"

static const char ROOT[] = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n";

typedef struct {
    proc_tree tree;
    smn_text_buffer text;
    smn_mounts mounts;
} mount_table;

static void setup(mount_table *table)
{
    tree_create(&table->tree);
    REQUIRE(smn_text_buffer_init(&table->text) == 0);
    smn_mounts_init(&table->mounts, table->tree.root, &table->text);
}

static void release(mount_table *table)
{
    smn_mounts_release(&table->mounts);
    smn_text_buffer_release(&table->text);
    tree_destroy(&table->tree);
}

/* Whether a path leads locally where the table is this one, in which %s is the tree. */
static bool is_local(mount_table *table, const char *format, const char *path)
{
    char lines[4 * PATH_MAX];
    const char *root = table->tree.path;
    snprintf(lines, sizeof lines, format, root, root, root);
    tree_write_text(&table->tree, "self/mountinfo", lines);
    REQUIRE(smn_mounts_read(&table->mounts) == 0);
    return smn_mounts_lead_locally(&table->mounts, path);
}

/* The same of a path in the tree, below a root that is local. */
static bool is_local_within(mount_table *table, const char *format, const char *path)
{
    char lines[4 * PATH_MAX];
    char whole[2 * PATH_MAX];
    snprintf(lines, sizeof lines, "%s%s", ROOT, format);
    snprintf(whole, sizeof whole, "%s%s", table->tree.path, path);
    return is_local(table, lines, whole);
}

static void test_types(void)
{
    static const struct {
        const char *type;
        bool is_local;
    } cases[] = {
        {"ext4 /dev/sda1 rw", true},
        {"xfs /dev/sda1 rw", true},
        {"btrfs /dev/sda1 rw", true},
        {"zfs tank rw", true},
        {"tmpfs tmpfs rw,size=4k", true},
        {"overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w", true},
        {"overlay overlay ro,lowerdir=/net/a:/net/b", false},
        {"nfs server:/export rw,hard", false},
        {"nfs4 server:/export rw,hard", false},
        {"cifs //server/share rw", false},
        {"fuse /dev/fuse rw", false},
        {"fuse.sshfs host: rw", false},
        {"fuseblk /dev/sdb1 rw", false},
        {"ceph 10.0.0.1:/ rw", false},
        {"lustre 10.0.0.1@tcp:/fs rw", false},
        {"gpfs fs1 rw", false},
        {"beegfs beegfs_nodev rw", false},
        {"9p share rw", false},
        {"virtiofs share rw", false},
        {"autofs systemd-1 rw,fd=29", false},
        {"ext5 /dev/sda1 rw", false},
        {"ext /dev/sda1 rw", false},
        {"ext44 /dev/sda1 rw", false},
        {"", false},
    };
    mount_table table;
    setup(&table);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].type);
        char line[256];
        snprintf(line, sizeof line, "22 1 0:1 / / rw,relatime - %s\n", cases[i].type);
        CHECK_INT(is_local(&table, line, "/"), cases[i].is_local);
        snprintf(line, sizeof line, "23 22 0:2 / %%s/a rw shared:2 master:3 - %s\n", cases[i].type);
        REQUIRE(mkdirat(table.tree.root, "a", 0755) == 0 || i > 0);
        CHECK_INT(is_local_within(&table, line, "/a"), cases[i].is_local);
    }
    check_case(NULL);
    release(&table);
}

static void test_paths(void)
{
    static const char remote[] = "23 22 0:2 / %s/a rw - nfs s:/a rw\n";
    mount_table table;
    setup(&table);
    tree_write_text(&table.tree, "a/below/file", "");
    tree_write_text(&table.tree, "ab/file", "");
    tree_write_text(&table.tree, "with blank/file", "");
    REQUIRE(symlinkat("a", table.tree.root, "link") == 0);
    REQUIRE(symlinkat("ab", table.tree.root, "harmless") == 0);

    CHECK(!is_local_within(&table, remote, "/a"));
    CHECK(!is_local_within(&table, remote, "/a/"));
    CHECK(!is_local_within(&table, remote, "//a"));
    CHECK(!is_local_within(&table, remote, "/a/below"));
    CHECK(!is_local_within(&table, remote, "/a/below/file"));
    CHECK(is_local_within(&table, remote, ""));
    CHECK(is_local_within(&table, remote, "/ab"));
    CHECK(is_local_within(&table, remote, "/ab/file"));
    CHECK(is_local_within(&table, remote, "///ab//file"));

    /* What is not known is not taken for local. */
    CHECK(!is_local_within(&table, remote, "/link"));
    CHECK(!is_local_within(&table, remote, "/link/below"));
    CHECK(!is_local_within(&table, "", "/harmless"));
    CHECK(!is_local_within(&table, "", "/ab/.."));
    CHECK(!is_local_within(&table, "", "/../a"));
    CHECK(!is_local_within(&table, "", "/missing"));
    CHECK(!is_local_within(&table, "", "/ab/file/more"));
    CHECK(!is_local(&table, ROOT, "ab"));
    CHECK(!is_local(&table, ROOT, "."));
    CHECK(!is_local(&table, ROOT, ""));

    /* A local one below a remote one, on the way and hidden by it. */
    CHECK(!is_local_within(&table,
                           "23 22 0:2 / %s/a rw - nfs s:/a rw\n"
                           "24 23 0:3 / %s/a/below rw - tmpfs tmpfs rw\n",
                           "/a/below"));
    /* One on top of the other: which of them is on top the table does not say. */
    CHECK(!is_local_within(&table,
                           "23 22 0:2 / %s/a rw - nfs s:/a rw\n"
                           "24 23 0:3 / %s/a rw - tmpfs tmpfs rw\n",
                           "/a"));
    CHECK(!is_local_within(&table, "23 22 0:2 / %s/with\\040blank rw - nfs s:/a rw\n",
                           "/with blank/file"));
    CHECK(is_local_within(&table, "23 22 0:2 / %s/with\\041blank rw - nfs s:/a rw\n",
                          "/with blank/file"));
    CHECK(is_local_within(&table, "23 22 0:2 / %s/with rw - nfs s:/a rw\n", "/with blank/file"));
    release(&table);
}

static void test_bad_tables(void)
{
    static const char *const tables[] = {
        "",
        "\n",
        "22",
        "22 1 254:0 / / rw - ext4 /dev/vda rw", /* cut: no newline */
        "22 1 254:0 / / rw ext4 /dev/vda rw\n",
        "22 1 254:0 / / rw -\n",
        "22 1 254:0 / /\n",
        "22 1 254:0 /\n",
        "22 1 254:0 / / rw - nfs s:/ rw\n22 1 254:0 / / rw - ext4 /dev/vda rw\n",
        "22 1 254:0 / /other rw - ext4 /dev/vda rw\n",
        "22 1 254:0 / \\ rw - ext4 /dev/vda rw\n",
        "22 1 254:0 / \\05 rw - ext4 /dev/vda rw\n",
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        check_case("%zu", i);
        mount_table table; /* of its own: the file would keep its length */
        setup(&table);
        CHECK(!is_local(&table, tables[i], "/"));
        release(&table);
    }
    check_case(NULL);

    mount_table table;
    setup(&table);
    CHECK(smn_mounts_read(&table.mounts) < 0);
    CHECK(smn_mounts_have_changed(&table.mounts)); /* it may be there the next time */
    char path[PATH_MAX + 8];
    memset(path, '/', sizeof path);
    path[sizeof path - 1] = '\0';
    CHECK(!is_local(&table, ROOT, path)); /* longer than any that the kernel takes */
    release(&table);
}

static void test_this_machine(void)
{
    smn_text_buffer text;
    smn_mounts mounts;
    int procfs = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(smn_text_buffer_init(&text) == 0);
    smn_mounts_init(&mounts, procfs, &text);
    CHECK_INT(smn_mounts_read(&mounts), 0);
    CHECK(smn_mounts_lead_locally(&mounts, "/proc") == smn_mounts_lead_locally(&mounts, "/"));
    CHECK(!smn_mounts_lead_locally(&mounts, "/proc/self"));
    CHECK(!smn_mounts_lead_locally(&mounts, "/no/such/path"));
    smn_mounts_release(&mounts);
    smn_text_buffer_release(&text);
    close(procfs);
}

int main(void)
{
    test_types();
    test_paths();
    test_bad_tables();
    test_this_machine();
    return check_report();
}
