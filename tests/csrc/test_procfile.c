/* Kept-open files of procfile.h: whole readings or an error, whatever stands at the path. */
#include "procfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "self.h"
#include "tree.h"

static smn_text_buffer buffer; /* of all files here */

static void fill(char *bytes, size_t length, unsigned seed)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)('a' + (i * 7 + i / 4096 + seed) % 26);
}

static void check_content(const smn_procfile *file, const char *expected, size_t length)
{
    smn_cursor text = smn_procfile_text(file);
    if (CHECK_INT(text.end - text.at, length))
        CHECK(memcmp(text.at, expected, length) == 0);
}

static void test_whole_readings(void)
{
    /* Around page and buffer sizes; grows and shrinks from one reading to the next. */
    static const size_t lengths[] = {1,     4095, 4096, 4097, 0,      100000,
                                     65536, 4096, 10,   0,    300000, 511};
    proc_tree tree;
    tree_create(&tree);
    char *bytes = malloc(300000);
    REQUIRE(bytes != NULL);
    tree_write(&tree, "file", "", 0);
    smn_procfile file;
    smn_procfile_init(&file, tree.root, "file", &buffer);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        check_case("%zu bytes", lengths[i]);
        fill(bytes, lengths[i], (unsigned)i);
        tree_write(&tree, "file", bytes, lengths[i]);
        CHECK_INT(smn_procfile_read(&file), 0);
        check_content(&file, bytes, lengths[i]);
        CHECK_INT(smn_procfile_read(&file), 0); /* from the start again, not from where it ended */
        check_content(&file, bytes, lengths[i]);
    }
    check_case(NULL);
    smn_procfile_release(&file);
    free(bytes);
    tree_destroy(&tree);
}

static void test_start_of_file(void)
{
    proc_tree tree;
    tree_create(&tree);
    char bytes[9000];
    fill(bytes, sizeof bytes, 1);
    tree_write(&tree, "file", bytes, sizeof bytes);
    smn_procfile file;
    smn_procfile_init(&file, tree.root, "file", &buffer);
    CHECK_INT(smn_procfile_read_start(&file, 512), 0);
    check_content(&file, bytes, 512);
    CHECK_INT(smn_procfile_read(&file), 0);
    check_content(&file, bytes, sizeof bytes);
    CHECK_INT(smn_procfile_read_start(&file, SIZE_MAX), 0); /* no more than there is room for */
    check_content(&file, bytes, sizeof bytes);
    tree_write(&tree, "file", bytes, 3);
    CHECK_INT(smn_procfile_read_start(&file, 512), 0);
    check_content(&file, bytes, 3);
    tree_write(&tree, "file", "", 0);
    CHECK_INT(smn_procfile_read_start(&file, 512), 0);
    check_content(&file, bytes, 0);
    smn_procfile_release(&file);
    tree_destroy(&tree);
}

static void test_kernel_files(void)
{
    int root = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(root >= 0);
    smn_procfile file;
    smn_procfile_init(&file, root, "meminfo", &buffer);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(smn_procfile_read(&file), 0);
        smn_cursor text = smn_procfile_text(&file);
        CHECK(smn_scan_key(&text, "MemTotal:"));
        CHECK(text.end[-1] == '\n');
    }
    smn_procfile_release(&file);

    /* The kernel gives a long file out in pieces of about a page: none may be missing. */
    enum {
        MAPPINGS = 400
    };
    size_t bytes = MAPPINGS * 4096;
    char *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    for (int i = 0; i < MAPPINGS; i += 2) /* every other page otherwise: no two are one mapping */
        REQUIRE(mprotect(memory + i * 4096, 4096, PROT_READ) == 0);
    smn_procfile_init(&file, root, "self/maps", &buffer);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(smn_procfile_read(&file), 0);
        smn_cursor text = smn_procfile_text(&file);
        CHECK(text.end - text.at > 2 * 4096);
        CHECK(text.end[-1] == '\n');
        int lines = 0;
        for (smn_cursor line; smn_scan_line(&text, &line);)
            lines++;
        CHECK(lines > MAPPINGS);
    }
    smn_procfile_release(&file);
    munmap(memory, bytes);
    close(root);
}

static void test_absent_at_first(void)
{
    proc_tree tree;
    tree_create(&tree);
    int open_files = self_open_files();
    smn_procfile file;
    smn_procfile_init(&file, tree.root, "net/dev", &buffer);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(smn_procfile_read(&file), -ENOENT);
        CHECK_INT(smn_procfile_read_start(&file, 10), -ENOENT);
        check_content(&file, "", 0);
    }
    tree_write_text(&tree, "net/dev", "here\n");
    CHECK_INT(smn_procfile_read(&file), 0);
    check_content(&file, "here\n", 5);
    CHECK_INT(self_open_files(), open_files + 1);
    smn_procfile_release(&file);
    CHECK_INT(self_open_files(), open_files);
    tree_destroy(&tree);
}

static void put_folder(const proc_tree *tree)
{
    REQUIRE(mkdirat(tree->root, "file", 0755) == 0);
}

static void put_fifo(const proc_tree *tree)
{
    REQUIRE(mkfifoat(tree->root, "file", 0644) == 0);
}

static void put_link_to_itself(const proc_tree *tree)
{
    REQUIRE(symlinkat("file", tree->root, "file") == 0);
}

static void put_broken_link(const proc_tree *tree)
{
    REQUIRE(symlinkat("nowhere", tree->root, "file") == 0);
}

/* Neither hangs nor keeps what is wrong: once it is a file again, it is read. */
static void test_something_else_in_its_place(void)
{
    static const struct {
        const char *what;
        void (*put)(const proc_tree *tree);
        int error;
    } cases[] = {
        {"folder", put_folder, -EISDIR},
        {"FIFO", put_fifo, -ESPIPE},
        {"link to itself", put_link_to_itself, -ELOOP},
        {"broken link", put_broken_link, -ENOENT},
    };
    proc_tree tree;
    tree_create(&tree);
    int open_files = self_open_files();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        smn_procfile file;
        smn_procfile_init(&file, tree.root, "file", &buffer);
        cases[i].put(&tree);
        for (int again = 0; again < 3; again++) {
            CHECK_INT(smn_procfile_read(&file), cases[i].error);
            CHECK_INT(smn_procfile_read_start(&file, 100), cases[i].error);
            check_content(&file, "", 0);
        }
        CHECK_INT(self_open_files(), open_files);
        tree_remove(&tree, "file");
        tree_write_text(&tree, "file", "better\n");
        CHECK_INT(smn_procfile_read(&file), 0);
        check_content(&file, "better\n", 7);
        smn_procfile_release(&file);
        tree_remove(&tree, "file");
    }
    check_case(NULL);
    tree_destroy(&tree);
}

static void test_too_large(void)
{
    proc_tree tree;
    tree_create(&tree);
    tree_write_text(&tree, "file", "start\n");
    smn_procfile file;
    smn_procfile_init(&file, tree.root, "file", &buffer);
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/file", tree.path);

    REQUIRE(truncate(path, (off_t)buffer.reserved - 1) == 0); /* sparse */
    CHECK_INT(smn_procfile_read(&file), 0);
    CHECK_U64(file.length, buffer.reserved - 1);
    REQUIRE(truncate(path, (off_t)buffer.reserved) == 0);
    CHECK_INT(smn_procfile_read(&file), -EFBIG);
    check_content(&file, "", 0);
    REQUIRE(truncate(path, (off_t)buffer.reserved * 4) == 0);
    CHECK_INT(smn_procfile_read(&file), -EFBIG);
    CHECK_INT(smn_procfile_read_start(&file, 6), 0);
    check_content(&file, "start\n", 6);
    REQUIRE(truncate(path, 6) == 0);
    CHECK_INT(smn_procfile_read(&file), 0);
    check_content(&file, "start\n", 6);

    smn_procfile_release(&file);
    tree_destroy(&tree);
}

/* Two files of two roots with a buffer each do not know of each other. */
static void test_roots(void)
{
    smn_text_buffer other;
    REQUIRE(smn_text_buffer_init(&other) == 0);
    proc_tree one;
    proc_tree two;
    tree_create(&one);
    tree_create(&two);
    tree_write_text(&one, "stat", "one\n");
    tree_write_text(&two, "stat", "number two\n");
    smn_procfile files[2];
    smn_procfile_init(&files[0], one.root, "stat", &buffer);
    smn_procfile_init(&files[1], two.root, "stat", &other);
    CHECK_INT(smn_procfile_read(&files[0]), 0);
    CHECK_INT(smn_procfile_read(&files[1]), 0);
    check_content(&files[0], "one\n", 4);
    check_content(&files[1], "number two\n", 11);
    smn_procfile_release(&files[0]);
    check_content(&files[1], "number two\n", 11);
    smn_procfile_release(&files[1]);
    smn_text_buffer_release(&other);
    tree_destroy(&one);
    tree_destroy(&two);
}

static void test_descriptors(void)
{
    proc_tree tree;
    tree_create(&tree);
    int open_files = self_open_files();
    for (int i = 0; i < 200; i++) {
        smn_procfile file;
        smn_procfile_init(&file, tree.root, "file", &buffer);
        CHECK_INT(smn_procfile_read(&file), -ENOENT);
        tree_write_text(&tree, "file", "x\n");
        CHECK_INT(smn_procfile_read(&file), 0);
        CHECK_INT(smn_procfile_read(&file), 0);
        CHECK_INT(fcntl(file.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        smn_procfile_release(&file);
        tree_remove(&tree, "file");
    }
    CHECK_INT(self_open_files(), open_files);

    /* One that never was initialised can be released, as after a failed open. */
    smn_procfile untouched = {.fd = -1};
    smn_procfile_release(&untouched);
    CHECK_INT(self_open_files(), open_files);
    tree_destroy(&tree);
}

int main(void)
{
    REQUIRE(smn_text_buffer_init(&buffer) == 0);
    test_whole_readings();
    test_start_of_file();
    test_kernel_files();
    test_absent_at_first();
    test_something_else_in_its_place();
    test_too_large();
    test_roots();
    test_descriptors();
    smn_text_buffer_release(&buffer);
    return check_report();
}
