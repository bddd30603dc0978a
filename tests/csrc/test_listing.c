/* Names in a folder, and paths of such names. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "listing.h"
#include "path.h"
#include "tree.h"

/* Folders of no entry, of one, and of more than one call of the kernel gives. */
static void test_listing(void)
{
    static const int counts[] = {0, 1, 500};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        check_case("%d entries", counts[c]);
        proc_tree tree;
        smn_listing listing;
        bool seen[500] = {false};
        int found = 0;
        tree_create(&tree);
        tree_write_text(&tree, "folder/x", "");
        tree_remove(&tree, "folder/x");
        for (int i = 0; i < counts[c]; i++) {
            char name[64];
            snprintf(name, sizeof name, "folder/entry-%d", i);
            tree_write_text(&tree, name, "");
        }
        REQUIRE(smn_listing_open(&listing, tree.root, "folder") == 0);
        for (const char *name; (name = smn_listing_next(&listing)) != NULL; found++) {
            REQUIRE(strncmp(name, "entry-", 6) == 0);
            int number = atoi(name + 6);
            REQUIRE(number >= 0 && number < 500);
            CHECK(!seen[number]);
            seen[number] = true;
        }
        CHECK_INT(found, counts[c]);
        CHECK(smn_listing_next(&listing) == NULL);
        smn_listing_close(&listing);
        tree_destroy(&tree);
    }
    check_case(NULL);
}

static void test_no_folder(void)
{
    proc_tree tree;
    smn_listing listing;
    tree_create(&tree);
    tree_write_text(&tree, "file", "");
    CHECK_INT(smn_listing_open(&listing, tree.root, "nothing"), -ENOENT);
    CHECK_INT(smn_listing_open(&listing, tree.root, "file"), -ENOTDIR);
    CHECK_INT(smn_listing_open(&listing, -1, "folder"), -EBADF);
    tree_destroy(&tree);
}

static void test_paths(void)
{
    char path[8];
    CHECK(SMN_PATH_JOIN(path, sizeof path, "ab", "/", "cde"));
    CHECK_TEXT(path, "ab/cde");
    CHECK(SMN_PATH_JOIN(path, sizeof path, "ab", "/", "cdef"));
    CHECK_TEXT(path, "ab/cdef");
    CHECK(!SMN_PATH_JOIN(path, sizeof path, "ab", "/", "cdefg"));
    CHECK_TEXT(path, "");
    CHECK(!SMN_PATH_JOIN(path, sizeof path, "abcdefgh", "i"));
    CHECK_TEXT(path, "");
    CHECK(SMN_PATH_JOIN(path, sizeof path, "", ""));
    CHECK_TEXT(path, "");
}

int main(void)
{
    test_listing();
    test_no_folder();
    test_paths();
    return check_report();
}
