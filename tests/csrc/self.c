#include "self.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

static int count_entries(const char *folder)
{
    DIR *entries = opendir(folder);
    REQUIRE(entries != NULL);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}

int self_open_files(void)
{
    return count_entries("/proc/self/fd") - 1; /* without that of the listing itself */
}

int self_threads(void)
{
    return count_entries("/proc/self/task");
}

static bool has_name(pid_t thread, const char *name)
{
    char path[64];
    char line[64] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)thread);
    FILE *comm = fopen(path, "re");
    if (comm == NULL)
        return false; /* it has just ended */
    if (fgets(line, sizeof line, comm) != NULL)
        line[strcspn(line, "\n")] = '\0';
    fclose(comm);
    return strcmp(line, name) == 0;
}

pid_t self_find_thread(const char *name)
{
    DIR *threads = opendir("/proc/self/task");
    REQUIRE(threads != NULL);
    pid_t found = 0;
    for (struct dirent *entry; found == 0 && (entry = readdir(threads)) != NULL;) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread > 0 && has_name(thread, name))
            found = thread;
    }
    closedir(threads);
    return found;
}

bool self_thread_ends(const char *name)
{
    for (time_t end = time(NULL) + 60; self_find_thread(name) != 0;) {
        if (time(NULL) > end)
            return false;
        self_breathe();
    }
    return true;
}

uint64_t self_status(pid_t thread, const char *key, int base)
{
    char path[64] = "/proc/self/status";
    char line[256];
    if (thread != 0)
        snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)thread);
    FILE *status = fopen(path, "re");
    REQUIRE(status != NULL);
    size_t length = strlen(key);
    const char *value = NULL;
    while (value == NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, key, length) == 0 && line[length] == ':')
            value = line + length + 1;
    }
    fclose(status);
    REQUIRE(value != NULL);
    return strtoull(value, NULL, base);
}

void self_breathe(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}
