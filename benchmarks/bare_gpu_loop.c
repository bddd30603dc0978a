/*
 * bare_gpu_loop RATE SECONDS
 *
 * The floor under the GPU thread: the same wake-ups, and the calls that are made
 * at each of them (two a device, and twice a second a third), of a library that
 * is opened as we open it. What they give is thrown away. Prints the CPU time of the calls in
 * nanoseconds and the number of wake-ups that it is of.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "../csrc/gpu/nvml_abi.h"
#include "pace.h"

enum {
    MOST_DEVICES = 64,
    ENERGY_PER_SECOND = 2,
    WARM_UP_WAKE_UPS = 5
};

static int (*init)(void);
static int (*count_devices)(unsigned int *);
static int (*get_handle)(unsigned int, smn_nvml_device *);
static int (*get_utilization)(smn_nvml_device, smn_nvml_utilization *);
static int (*get_memory)(smn_nvml_device, smn_nvml_memory *);
static int (*get_energy)(smn_nvml_device, unsigned long long *);

static void *find(void *library, const char *name)
{
    void *function = library != NULL ? dlsym(library, name) : NULL;
    if (function == NULL) {
        fprintf(stderr, "%s: not found\n", name);
        exit(1);
    }
    return function;
}

static unsigned int open_devices(smn_nvml_device *devices)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    *(void **)&init = find(library, "nvmlInit_v2");
    *(void **)&count_devices = find(library, "nvmlDeviceGetCount_v2");
    *(void **)&get_handle = find(library, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&get_utilization = find(library, "nvmlDeviceGetUtilizationRates");
    *(void **)&get_memory = find(library, "nvmlDeviceGetMemoryInfo");
    *(void **)&get_energy = find(library, "nvmlDeviceGetTotalEnergyConsumption");
    unsigned int count = 0;
    if (init() != 0 || count_devices(&count) != 0 || count > MOST_DEVICES)
        exit(1);
    for (unsigned int i = 0; i < count; i++) {
        if (get_handle(i, &devices[i]) != 0)
            exit(1);
    }
    return count;
}

static void read_device(smn_nvml_device device, int with_energy)
{
    smn_nvml_utilization utilization;
    smn_nvml_memory memory;
    unsigned long long energy;
    if (get_utilization(device, &utilization) != 0 || get_memory(device, &memory) != 0 ||
        (with_energy && get_energy(device, &energy) != 0))
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bare_gpu_loop RATE SECONDS\n");
        return 2;
    }
    double rate = positive(argv[1]);
    long long wanted = (long long)(rate * positive(argv[2]));
    smn_nvml_device devices[MOST_DEVICES];
    unsigned int count = open_devices(devices);
    long long per_energy = rate > ENERGY_PER_SECOND ? (long long)(rate / ENERGY_PER_SECOND) : 1;
    long long reading_ns = 0;
    pace deadlines = pace_start(rate);
    for (long long n = -WARM_UP_WAKE_UPS; n < wanted; n++) {
        pace_wait(&deadlines);
        long long before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        for (unsigned int i = 0; i < count; i++)
            read_device(devices[i], n % per_energy == 0);
        if (n >= 0)
            reading_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
    }
    printf("%lld %lld\n", reading_ns, wanted);
    return 0;
}
