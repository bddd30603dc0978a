#include "mounts.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static const char PATH[] = "self/mountinfo";

enum {
    FIELDS_BEFORE_MOUNT_POINT = 4
};

/*
 * Types whose space the kernel knows by itself. Not here: all that asks another
 * machine or a process, as nfs, cifs, ceph, lustre, 9p, virtiofs and fuse do, and
 * autofs, where the question itself mounts something.
 */
static const char *const LOCAL[] = {
    "bcachefs", "btrfs",  "cgroup", "cgroup2", "devpts",  "devtmpfs", "erofs",  "exfat",
    "ext2",     "ext3",   "ext4",   "f2fs",    "hfsplus", "iso9660",  "jfs",    "mqueue",
    "msdos",    "nilfs2", "ntfs3",  "proc",    "ramfs",   "reiserfs", "rootfs", "squashfs",
    "sysfs",    "tmpfs",  "udf",    "vfat",    "xfs",     "zfs",
};

void smn_mounts_init(smn_mounts *mounts, int procfs, smn_text_buffer *text)
{
    smn_procfile_init(&mounts->file, procfs, PATH, text);
}

void smn_mounts_release(smn_mounts *mounts)
{
    smn_procfile_release(&mounts->file);
}

int smn_mounts_read(smn_mounts *mounts)
{
    return smn_procfile_read(&mounts->file);
}

/* The kernel counts changes for each file that is open: poll(2) tells of each once. */
bool smn_mounts_have_changed(const smn_mounts *mounts)
{
    struct pollfd file = {.fd = mounts->file.fd, .events = POLLPRI};
    return file.fd < 0 || (poll(&file, 1, 0) > 0 && (file.revents & (POLLPRI | POLLERR)) != 0);
}

/* ---- one line ----------------------------------------------------------- */

/* Splits off what stands before the next blank or the end of the line. */
static smn_cursor next_field(smn_cursor *line)
{
    smn_scan_spaces(line);
    smn_cursor field = *line;
    while (line->at < line->end && *line->at != ' ' && *line->at != '\n')
        line->at++;
    field.end = line->at;
    return field;
}

static bool is_digit(char character)
{
    return character >= '0' && character <= '7';
}

/* The kernel writes blanks, newlines and backslashes as "\040". */
static char next_character(smn_cursor *field)
{
    const char *at = field->at;
    if (field->end - at >= 4 && at[0] == '\\' && is_digit(at[1]) && is_digit(at[2]) &&
        is_digit(at[3])) {
        field->at += 4;
        return (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0'));
    }
    field->at++;
    return *at;
}

static bool is_path(smn_cursor field, const char *path)
{
    while (field.at < field.end && *path != '\0') {
        if (next_character(&field) != *path++)
            return false;
    }
    return field.at == field.end && *path == '\0';
}

static bool is_text(smn_cursor field, const char *text)
{
    return (size_t)(field.end - field.at) == strlen(text) && smn_scan_key(&field, text);
}

/*
 * `line` stands behind the mount point. An overlay asks the file system that it
 * writes to, which has to be a local one; one that is only read may lie anywhere.
 */
static bool is_local(smn_cursor line)
{
    static const char upper[] = "upperdir=";
    smn_cursor field;
    do {
        field = next_field(&line);
    } while (field.at < field.end && !is_text(field, "-"));
    smn_cursor type = next_field(&line);
    if (is_text(type, "overlay"))
        return memmem(line.at, (size_t)(line.end - line.at), upper, sizeof upper - 1) != NULL;
    for (size_t i = 0; i < sizeof LOCAL / sizeof *LOCAL; i++) {
        if (is_text(type, LOCAL[i]))
            return true;
    }
    return false;
}

/* ---- one path ----------------------------------------------------------- */

typedef struct {
    int found;
    int not_local;
} mount_count;

/* What is mounted right there, one on top of the other. */
static mount_count count_mounts(smn_cursor text, const char *path)
{
    mount_count count = {0};
    smn_cursor line;
    while (smn_scan_line(&text, &line)) {
        for (int i = 0; i < FIELDS_BEFORE_MOUNT_POINT; i++)
            (void)next_field(&line);
        if (is_path(next_field(&line), path)) {
            count.found++;
            count.not_local += !is_local(line);
        }
    }
    return count;
}

/* Asked only of what lies in a file system that answers. */
static bool is_no_link(const char *path)
{
    char target;
    return readlink(path, &target, 1) < 0 && errno == EINVAL;
}

bool smn_mounts_lead_locally(const smn_mounts *mounts, const char *path)
{
    char way[PATH_MAX] = "/";
    size_t length = 1;
    smn_cursor text = smn_procfile_text(&mounts->file);
    mount_count root = count_mounts(text, way);
    if (*path != '/' || strlen(path) >= sizeof way || root.found == 0 || root.not_local > 0)
        return false;
    for (const char *rest = path;;) {
        rest += strspn(rest, "/");
        size_t part = strcspn(rest, "/");
        if (part == 0)
            return true;
        if (length > 1)
            way[length++] = '/';
        memcpy(way + length, rest, part);
        way[length += part] = '\0';
        rest += part;
        /* ".." is no link, but leads out of what was looked at. */
        if ((part == 2 && memcmp(way + length - 2, "..", 2) == 0) ||
            count_mounts(text, way).not_local > 0 || !is_no_link(way))
            return false;
    }
}
