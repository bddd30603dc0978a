#include "scenario_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "tree.h"

static proc_tree folder;

void scenario_write(const char *text)
{
    char content[4096];
    char path[PATH_MAX + 16];
    if (*folder.path == '\0') {
        tree_create(&folder);
        snprintf(path, sizeof path, "%s/scenario", folder.path);
        REQUIRE(setenv("SMN_FAKE_GPUS", path, 1) == 0);
    }
    int length = snprintf(content, sizeof content, "live\n%s\n", text);
    REQUIRE(length > 0 && (size_t)length < sizeof content);
    tree_write_text(&folder, "next", content);
    REQUIRE(renameat(folder.root, "next", folder.root, "scenario") == 0);
}

void scenario_remove(void)
{
    if (*folder.path != '\0')
        tree_destroy(&folder);
    *folder.path = '\0';
}
