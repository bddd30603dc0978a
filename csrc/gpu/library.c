/* Opening driver libraries. None is a dependency: each is looked for when it is wanted. */
#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/*
 * Never closed: a driver library has threads and exit functions of its own, and
 * the program may have opened it, too.
 */
static void *open_library(const char *path, smn_gpu_attempt *attempt)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library != NULL)
        snprintf(attempt->name, sizeof attempt->name, "%.*s", SMN_GPU_TEXT_BYTES - 1, path);
    return library;
}

/* "not found" for what is not there, else what the loader says, without the name in front. */
static void explain(const char *name, char *outcome)
{
    const char *error = dlerror();
    size_t length = strlen(name);
    if (error == NULL)
        error = "it cannot be loaded";
    if (strncmp(error, name, length) == 0 && strncmp(error + length, ": ", 2) == 0) {
        error += length + 2;
        if (strstr(error, "No such file") != NULL)
            error = "not found";
    }
    snprintf(outcome, SMN_GPU_OUTCOME_BYTES, "%s", error);
}

void *smn_gpu_load(const char *const *names, const char *const *folders, smn_gpu_attempt *attempt)
{
    void *library = NULL;
    char reason[SMN_GPU_OUTCOME_BYTES] = "";
    snprintf(attempt->name, sizeof attempt->name, "%s", names[0]);
    for (size_t n = 0; names[n] != NULL && library == NULL; n++) {
        library = open_library(names[n], attempt);
        if (library == NULL && n == 0)
            explain(names[0], reason);
        for (size_t f = 0; folders != NULL && folders[f] != NULL && library == NULL; f++) {
            char path[512];
            int length = snprintf(path, sizeof path, "%s/%s", folders[f], names[n]);
            if (length > 0 && (size_t)length < sizeof path)
                library = open_library(path, attempt);
        }
    }
    if (library == NULL)
        snprintf(attempt->outcome, sizeof attempt->outcome, "%s", reason);
    return library;
}

int smn_gpu_symbol(void *library, const char *name, void *slot)
{
    void *address = dlsym(library, name);
    memcpy(slot, &address, sizeof address); /* ISO C has no cast from an object to a function */
    return address != NULL;
}
