/*
 * 37
 *
 * AMD GPUs by way of the files of the kernel's driver amdgpu, for machines
 * without ROCm's libraries: class/drm/card<N>/device/gpu_busy_percent and its
 * like (docs.kernel.org, "GPU Power/Thermal Controls and Monitoring").
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../procfile.h"
#include "amd.h"

enum {
    PATH_BYTES = 320,
    NUMBER_BYTES = 64, /* of a file with one number in it */
    MOST_SENSORS = 8,
    VENDOR = 0x1002
};

enum {
    BUSY,
    MEMORY_TOTAL, /* before what is used of it, which it is compared with */
    MEMORY_USED,
    POWER,
    ENERGY,
    POWER_CAP,
    TEMPERATURE,
    GFX_CLOCK,
    MEMORY_CLOCK,
    FILES
};

typedef struct {
    char path[PATH_BYTES]; /* below the root of sysfs; "" where the device has none */
    smn_procfile file;
} sysfs_file;

typedef struct {
    smn_amd_device common; /* first, so that an array of these is one of those */
    int card;
    sysfs_file files[FILES];
} sysfs_device;

typedef struct {
    int root; /* of sysfs; our own */
    int count;
    smn_text_buffer text; /* the GPU thread's own: samplers have theirs */
    sysfs_device devices[SMN_GPU_MOST_DEVICES];
} sysfs_state;

/* ---- files -------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void set_path(char *path, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = vsnprintf(path, PATH_BYTES, format, values);
    va_end(values);
    if (length < 0 || length >= PATH_BYTES)
        *path = '\0';
}

static bool exists(const sysfs_state *sysfs, const char *path)
{
    return *path != '\0' && faccessat(sysfs->root, path, F_OK, 0) == 0;
}

/* A short text file, without the end of its line. "" where there is none. */
static void read_text(int root, const char *path, char *text, size_t size)
{
    *text = '\0';
    int fd = *path != '\0' ? openat(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (fd < 0)
        return;
    ssize_t length = pread(fd, text, size - 1, 0);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static void release_files(sysfs_device *device)
{
    for (int i = 0; i < FILES; i++) {
        if (*device->files[i].path != '\0')
            smn_procfile_release(&device->files[i].file);
        *device->files[i].path = '\0';
    }
}

/* ---- the files of one card ---------------------------------------------- */

/* The folder below hwmon/ that belongs to the card; "" where there is none. */
static void find_monitor(const sysfs_state *sysfs, int card, char *folder)
{
    char parent[PATH_BYTES];
    set_path(parent, "class/drm/card%d/device/hwmon", card);
    *folder = '\0';
    int fd = openat(sysfs->root, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (entries == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strncmp(entry->d_name, "hwmon", 5) == 0)
            set_path(folder, "class/drm/card%d/device/hwmon/%.64s", card, entry->d_name);
    closedir(entries);
}

/* The sensor whose label is this, as the path of its input; `fallback` where none has. */
static void find_sensor(const sysfs_state *sysfs, const char *monitor, const char *kind,
                        const char *label, int fallback, char *path)
{
    int number = fallback;
    for (int i = 1; i <= MOST_SENSORS; i++) {
        char text[32];
        set_path(path, "%.250s/%s%d_label", monitor, kind, i);
        read_text(sysfs->root, path, text, sizeof text);
        if (strcmp(text, label) == 0)
            number = i;
        else if (i == fallback && number == fallback && *text != '\0')
            number = 0; /* it is there, and something else */
    }
    *path = '\0';
    if (number > 0)
        set_path(path, "%.250s/%s%d_input", monitor, kind, number);
}

static void find_temperature(const sysfs_state *sysfs, const char *monitor, char *path)
{
    find_sensor(sysfs, monitor, "temp", "junction", 0, path);
    if (!exists(sysfs, path))
        find_sensor(sysfs, monitor, "temp", "edge", 1, path);
}

static void find_sensors(const sysfs_state *sysfs, sysfs_device *device)
{
    char monitor[PATH_BYTES];
    sysfs_file *files = device->files;
    find_monitor(sysfs, device->card, monitor);
    if (*monitor == '\0')
        return;
    set_path(files[POWER].path, "%.250s/power1_average", monitor);
    if (!exists(sysfs, files[POWER].path))
        set_path(files[POWER].path, "%.250s/power1_input", monitor);
    set_path(files[ENERGY].path, "%.250s/energy1_input", monitor);
    set_path(files[POWER_CAP].path, "%.250s/power1_cap", monitor);
    find_temperature(sysfs, monitor, files[TEMPERATURE].path);
    find_sensor(sysfs, monitor, "freq", "sclk", 1, files[GFX_CLOCK].path);
    find_sensor(sysfs, monitor, "freq", "mclk", 2, files[MEMORY_CLOCK].path);
}

/* Looks for all of them; they are opened when they are read. */
static void find_files(sysfs_state *sysfs, sysfs_device *device)
{
    static const char *const own[] = {[BUSY] = "gpu_busy_percent",
                                      [MEMORY_USED] = "mem_info_vram_used",
                                      [MEMORY_TOTAL] = "mem_info_vram_total"};
    release_files(device);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        set_path(device->files[i].path, "class/drm/card%d/device/%s", device->card, own[i]);
    find_sensors(sysfs, device);
    for (int i = 0; i < FILES; i++) {
        sysfs_file *file = &device->files[i];
        if (!exists(sysfs, file->path))
            *file->path = '\0';
        else
            smn_procfile_init(&file->file, sysfs->root, file->path, &sysfs->text);
    }
}

/* ---- cards -------------------------------------------------------------- */

/* Of "card0"; not of "card0-DP-1", which is a connector, nor of "renderD128". */
static int card_number(const char *name)
{
    char *end;
    if (strncmp(name, "card", 4) != 0 || name[4] < '0' || name[4] > '9')
        return -1;
    long number = strtol(name + 4, &end, 10);
    return *end == '\0' && number < 1000000 ? (int)number : -1;
}

static bool is_amd(const sysfs_state *sysfs, int card)
{
    char path[PATH_BYTES];
    char text[32];
    char *end;
    set_path(path, "class/drm/card%d/device/vendor", card);
    read_text(sysfs->root, path, text, sizeof text);
    return *text != '\0' && strtoul(text, &end, 16) == VENDOR && *end == '\0';
}

/* The last part of what the link "device" points to. */
static uint64_t address_of(const sysfs_state *sysfs, int card)
{
    char path[PATH_BYTES];
    char target[PATH_BYTES];
    set_path(path, "class/drm/card%d/device", card);
    ssize_t length = readlinkat(sysfs->root, path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    const char *slash = strrchr(target, '/');
    return smn_amd_parse_address(slash != NULL ? slash + 1 : target);
}

typedef struct {
    uint64_t address; /* the largest where it is not known, and so behind the others */
    int card;
} sysfs_card;

static int compare_cards(const void *left, const void *right)
{
    const sysfs_card *a = left;
    const sysfs_card *b = right;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    return a->card < b->card ? -1 : 1;
}

/* Fills cards[SMN_GPU_MOST_DEVICES], by address: numbers of cards change with every boot. */
static int list_cards(const sysfs_state *sysfs, sysfs_card *cards)
{
    int count = 0;
    int fd = openat(sysfs->root, "class/drm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (entries == NULL) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        int card = card_number(entry->d_name);
        if (card >= 0 && count < SMN_GPU_MOST_DEVICES && is_amd(sysfs, card))
            cards[count++] = (sysfs_card){address_of(sysfs, card), card};
    }
    closedir(entries);
    qsort(cards, (size_t)count, sizeof *cards, compare_cards);
    return count;
}

/* The card may be back with another number; at the same address it is the same. */
static int sysfs_recover(void *state, int index)
{
    sysfs_state *sysfs = state;
    sysfs_device *device = &sysfs->devices[index];
    sysfs_card cards[SMN_GPU_MOST_DEVICES];
    int count = list_cards(sysfs, cards);
    for (int n = 0; n < count; n++) {
        int i = (index + n) % count; /* its old place first: partitions may share an address */
        bool is_it = device->common.address == SMN_AMD_NO_ADDRESS
                         ? cards[i].card == device->card
                         : cards[i].address == device->common.address;
        if (is_it) {
            device->card = cards[i].card;
            find_files(sysfs, device);
            return 0;
        }
    }
    return -ENODEV;
}

/* ---- readings ----------------------------------------------------------- */

/*
 * amdgpu answers EPERM while it resets a GPU or the GPU sleeps; what a user may
 * not read cannot even be opened, with EACCES.
 */
static int error_of(const sysfs_state *sysfs, const sysfs_device *device, int error)
{
    switch (error) {
    case 0:
        return 0;
    case -ENODEV:
    case -ENXIO:
    case -ENOENT:
        return is_amd(sysfs, device->card) ? -ENOTSUP : -ENODEV;
    case -EOPNOTSUPP:
    case -EINVAL:
        return -ENOTSUP;
    case -EACCES:
        return -EACCES;
    case -EAGAIN:
        return -EBUSY;
    default:
        return error;
    }
}

static int read_number(sysfs_state *sysfs, int index, int which, uint64_t *value)
{
    sysfs_device *device = &sysfs->devices[index];
    sysfs_file *file = &device->files[which];
    int error = *file->path != '\0' ? smn_procfile_read_start(&file->file, NUMBER_BYTES) : -ENOENT;
    if (error == 0) {
        smn_cursor text = smn_procfile_text(&file->file);
        error = smn_scan_u64(&text, value);
    }
    return smn_amd_outcome(&device->common, which, error_of(sysfs, device, error));
}

static int read_busy(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_number(state, index, BUSY, &value);
    if (error == 0)
        readings[SMN_GPU_UTILIZATION] = smn_amd_percentage(value);
    return error;
}

static int read_memory_used(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_number(state, index, MEMORY_USED, &value);
    if (error == 0)
        readings[SMN_GPU_MEMORY_USED] = smn_amd_bytes(value);
    return error;
}

static int read_memory_total(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_number(state, index, MEMORY_TOTAL, &value);
    if (error == 0 && value > 0)
        readings[SMN_GPU_MEMORY_TOTAL] = smn_amd_bytes(value);
    return error;
}

/* Of a sensor that partitions of a card share. */
static int read_shared(sysfs_state *sysfs, int index, int which, uint64_t *value)
{
    if (!sysfs->devices[index].common.has_sensors)
        return -ENOTSUP;
    return read_number(sysfs, index, which, value);
}

static int read_power(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_shared(state, index, POWER, &value);
    if (error == 0)
        readings[SMN_GPU_POWER] = smn_amd_microwatts(value);
    return error;
}

static int read_energy(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_shared(state, index, ENERGY, &value);
    if (error == 0)
        readings[SMN_GPU_ENERGY] = smn_amd_joules(value, 1);
    return error;
}

static int read_power_cap(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_shared(state, index, POWER_CAP, &value);
    if (error == 0)
        readings[SMN_GPU_POWER_LIMIT] = smn_amd_microwatts(value);
    return error;
}

static int read_temperature(void *state, int index, double *readings)
{
    uint64_t value;
    int error = read_number(state, index, TEMPERATURE, &value);
    if (error == 0)
        readings[SMN_GPU_TEMPERATURE] = smn_amd_millidegrees((int64_t)value);
    return error;
}

static int read_clock(sysfs_state *sysfs, int index, int which, double *megahertz)
{
    uint64_t hertz;
    int error = read_number(sysfs, index, which, &hertz);
    if (error == 0)
        *megahertz = smn_amd_up_to(20e9, hertz) / 1e6;
    return error;
}

static int read_gfx_clock(void *state, int index, double *readings)
{
    return read_clock(state, index, GFX_CLOCK, &readings[SMN_GPU_SM_CLOCK]);
}

static int read_memory_clock(void *state, int index, double *readings)
{
    return read_clock(state, index, MEMORY_CLOCK, &readings[SMN_GPU_MEMORY_CLOCK]);
}

/* A call that reads one value. */
#define READS(value, function, group, pace, read)                                                  \
    {function, SMN_GPU_##group, SMN_GPU_##pace, read, SMN_GPU_##value, SMN_GPU_##value}

static const smn_gpu_call calls[] = {
    [BUSY] = READS(UTILIZATION, "gpu_busy_percent", BASIC, FAST, read_busy),
    [MEMORY_TOTAL] = READS(MEMORY_TOTAL, "mem_info_vram_total", BASIC, FAST, read_memory_total),
    [MEMORY_USED] = READS(MEMORY_USED, "mem_info_vram_used", BASIC, FAST, read_memory_used),
    [POWER] = READS(POWER, "hwmon/power1_average", BASIC, FAST, read_power),
    [ENERGY] = READS(ENERGY, "hwmon/energy1_input", BASIC, PER_SPAN, read_energy),
    [POWER_CAP] = READS(POWER_LIMIT, "hwmon/power1_cap", BASIC, SLOW, read_power_cap),
    [TEMPERATURE] = READS(TEMPERATURE, "hwmon/temp2_input", DETAIL, SLOW, read_temperature),
    [GFX_CLOCK] = READS(SM_CLOCK, "hwmon/freq1_input", DETAIL, SLOW, read_gfx_clock),
    [MEMORY_CLOCK] = READS(MEMORY_CLOCK, "hwmon/freq2_input", DETAIL, SLOW, read_memory_clock),
};

#undef READS

/* ---- who a device is ---------------------------------------------------- */

static void read_unique_id(const sysfs_state *sysfs, int card, char *uuid)
{
    char path[PATH_BYTES];
    char text[32];
    char *end;
    set_path(path, "class/drm/card%d/device/unique_id", card);
    read_text(sysfs->root, path, text, sizeof text);
    unsigned long long number = strtoull(text, &end, 16);
    if (*text != '\0' && *end == '\0')
        smn_amd_format_uuid(number, uuid);
}

static int sysfs_identify(void *state, int index, smn_gpu_identity *identity)
{
    sysfs_state *sysfs = state;
    const sysfs_device *device = &sysfs->devices[index];
    char path[PATH_BYTES];
    char text[256];
    uint64_t total;
    *identity = (smn_gpu_identity){.memory_bytes = (double)NAN};
    smn_amd_format_address(device->common.address, identity->pci_id);
    if (!is_amd(sysfs, device->card))
        return -ENODEV;
    read_unique_id(sysfs, device->card, identity->uuid);
    set_path(path, "class/drm/card%d/device/product_name", device->card);
    read_text(sysfs->root, path, text, sizeof text);
    smn_amd_copy_text(identity->name, text, sizeof text);
    if (read_number(sysfs, index, MEMORY_TOTAL, &total) == 0 && total > 0)
        identity->memory_bytes = smn_amd_bytes(total);
    return 0;
}

/* ---- opening ------------------------------------------------------------ */

static void sysfs_close(void *state)
{
    sysfs_state *sysfs = state;
    for (int i = 0; i < sysfs->count; i++)
        release_files(&sysfs->devices[i]);
    smn_text_buffer_release(&sysfs->text);
    if (sysfs->root >= 0)
        close(sysfs->root);
    free(sysfs);
}

static void add_cards(sysfs_state *sysfs, const sysfs_card *cards, int count)
{
    for (int i = 0; i < count; i++) {
        sysfs_device *device = &sysfs->devices[i];
        smn_amd_device_init(&device->common, cards[i].address, sysfs->devices, i,
                            sizeof *sysfs->devices);
        device->card = cards[i].card;
        find_files(sysfs, device);
        sysfs->count++;
    }
}

/* The state with all cards that there are, or NULL: no memory. */
static sysfs_state *look(int root)
{
    sysfs_card cards[SMN_GPU_MOST_DEVICES];
    sysfs_state *sysfs = calloc(1, sizeof *sysfs);
    if (sysfs == NULL)
        return NULL;
    sysfs->root = fcntl(root, F_DUPFD_CLOEXEC, 0);
    if (sysfs->root < 0 || smn_text_buffer_init(&sysfs->text) != 0) {
        sysfs_close(sysfs);
        return NULL;
    }
    add_cards(sysfs, cards, list_cards(sysfs, cards));
    return sysfs;
}

static int sysfs_open(int root, void **state, int *device_count, smn_gpu_attempt *attempt)
{
    *attempt = (smn_gpu_attempt){.name = "class/drm in sysfs", .outcome = "no AMD GPU"};
    if (root < 0)
        return -ENODATA;
    sysfs_state *sysfs = look(root);
    if (sysfs == NULL)
        return -ENOMEM;
    if (sysfs->count == 0) {
        sysfs_close(sysfs);
        return -ENODATA;
    }
    snprintf(attempt->outcome, sizeof attempt->outcome, "%d device%s", sysfs->count,
             sysfs->count == 1 ? "" : "s");
    read_text(root, "module/amdgpu/version", attempt->driver_version,
              sizeof attempt->driver_version);
    *state = sysfs;
    *device_count = sysfs->count;
    return 0;
}

const smn_gpu_driver smn_gpu_amdgpu_sysfs = {
    .vendor = "AMD",
    .open = sysfs_open,
    .identify = sysfs_identify,
    .calls = calls,
    .call_count = sizeof calls / sizeof *calls,
    .recover = sysfs_recover,
    .close = sysfs_close,
};
