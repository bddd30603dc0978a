/*
 * package-0          /sys/class/powercap/intel-rapl:0/name (the kernel's
 * 210492718253       Documentation/power/powercap/powercap.rst), energy_uj: microjoules
 * 262143328850       since some time, and max_energy_range_uj: where that wraps
 * coretemp           /sys/class/hwmon/hwmon3/name (Documentation/hwmon/sysfs-interface.rst)
 * 47000              temp1_input, in thousandths of a degree Celsius
 *
 * AMD's packages are called the same. A package of several dies is several
 * domains ("package-0-die-1"), which are added up. The domains of one package's
 * cores or memory ("intel-rapl:0:0") are parts of it, "psys" is more than
 * packages, and "intel-rapl-mmio:0" is package 0 once more. Many kernels let
 * only root read energy: what must not be read is as good as not there.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../procfile.h"
#include "../source.h"

static const char POWERCAP[] = "class/powercap";
static const char HWMON[] = "class/hwmon";

enum {
    NUMBER_BYTES = 32
};

/*
 * No package draws as much: a larger increase is no wrap but another counter,
 * as after a reload of the driver. The second more is for readings so close
 * together that the counter's own steps of a millisecond show.
 */
static const double MOST_WATTS = 5000.0;

/* Half of min_interval_ns: the rest of a window is joined to the stretch before it. */
static const double QUANTUM_SECONDS = 0.05;

/*
 * Sensors are one a core, and reading one wakes its core, so that is done once a
 * second; a little less, so that a window of a second has a temperature.
 */
static const uint64_t TEMPERATURE_PERIOD_NS = 900000000;

enum {
    OF_PACKAGE = 2 /* series, from the first on; then that of the machine */
};

static const char POWERCAP_ENERGY[] = "/sys/class/powercap/intel-rapl:*/energy_uj";

/* Columns count from that of the package; the temperature's is behind them all. */
static const smn_series_spec series[] = {
    {"cpu_package_{i}_power_watts", "watts", SMN_RATE, 0, 0, 1e-6, QUANTUM_SECONDS,
     "power of a CPU package", POWERCAP_ENERGY,
     "Δenergy_uj / 1e6 / Δt, dies summed; max_energy_range_uj tells a wrap"},
    {"cpu_package_{i}_energy_joules", "joules", SMN_TOTAL, 0, 0, 1e-6, 0.0,
     "energy that a CPU package took since the start", POWERCAP_ENERGY,
     "Δenergy_uj / 1e6, summed; dies and wraps likewise"},
    {"cpu_temperature_celsius", "celsius", SMN_GAUGE, 0, 0, 1.0, 0.0,
     "temperature of the hottest sensor of the CPUs",
     "/sys/class/hwmon/*/temp*_input of coretemp, k10temp and zenpower",
     "the largest / 1000; about once a second"},
};

typedef struct {
    int package; /* its number */
    int column;
    char *path;
    smn_procfile file;
    uint64_t range; /* microjoules after which it begins again */
    bool has_previous;
    uint64_t previous;
    uint64_t previous_ns;
    uint64_t total; /* microjoules since the first reading */
} domain;

typedef struct {
    smn_environment environment;
    domain *domains; /* in the order of packages */
    int domain_count;
    int package_count;
    char **sensors; /* paths */
    int sensor_count;
    bool has_temperature;
    uint64_t temperature_due_ns;
} energy_state;

/* ---- small files of sysfs ----------------------------------------------- */

/* Opened each time: of sensors there are hundreds, and the others are read once. */
static int read_small(const smn_environment *environment, const char *path, smn_cursor *text)
{
    smn_procfile file;
    smn_procfile_init(&file, environment->sysfs, path, environment->text);
    int error = smn_procfile_read_start(&file, NUMBER_BYTES);
    *text = smn_procfile_text(&file); /* in the buffer that files share: it outlives this one */
    smn_procfile_release(&file);
    return error;
}

static int read_number(const smn_environment *environment, const char *path, uint64_t *number)
{
    smn_cursor text;
    int error = read_small(environment, path, &text);
    return error == 0 ? smn_scan_u64(&text, number) : error;
}

/* ---- packages ----------------------------------------------------------- */

/* How much was used since the previous reading; a wrap is known, a reset used nothing. */
static uint64_t energy_since(const domain *it, uint64_t now, uint64_t now_ns)
{
    uint64_t increase;
    if (now >= it->previous)
        increase = now - it->previous;
    else if (it->previous <= it->range)
        increase = it->range - it->previous + now;
    else
        return 0;
    double seconds = (double)(now_ns - it->previous_ns) * 1e-9 + 1.0;
    return (double)increase * 1e-6 <= MOST_WATTS * seconds ? increase : 0;
}

static int read_domain(const energy_state *state, domain *it, double *columns)
{
    const smn_clock *clock = state->environment.clock;
    uint64_t now;
    int error = smn_procfile_read_start(&it->file, NUMBER_BYTES);
    smn_cursor text = smn_procfile_text(&it->file);
    if (error == 0)
        error = smn_scan_u64(&text, &now);
    if (error != 0)
        return error;
    uint64_t now_ns = clock->monotonic_ns(clock->context);
    if (it->has_previous)
        it->total += energy_since(it, now, now_ns);
    it->has_previous = true;
    it->previous = now;
    it->previous_ns = now_ns;
    columns[it->column] += (double)it->total;
    return 0;
}

/* A package of which one die is missing is absent: its sum would be too small, then leap. */
static int read_packages(energy_state *state, double *columns)
{
    int first_error = 0;
    for (int p = 0; p < state->package_count; p++)
        columns[p] = 0.0;
    for (int i = 0; i < state->domain_count; i++) {
        domain *it = &state->domains[i];
        int error = read_domain(state, it, columns);
        if (error != 0)
            columns[it->column] = NAN; /* which nothing that is added can heal */
        if (first_error == 0)
            first_error = error;
    }
    return first_error;
}

/* ---- temperature -------------------------------------------------------- */

static int read_sensor(const energy_state *state, const char *path, double *celsius)
{
    smn_cursor text;
    uint64_t thousandths;
    int error = read_small(&state->environment, path, &text);
    bool is_negative = error == 0 && smn_scan_key(&text, "-");
    if (error == 0)
        error = smn_scan_u64(&text, &thousandths);
    if (error == 0)
        *celsius = (is_negative ? -1e-3 : 1e-3) * (double)thousandths;
    return error;
}

/* Sensors of cores that are offline are gone, or fail: the hottest is that of the others. */
static int read_temperature(energy_state *state, double *column)
{
    const smn_clock *clock = state->environment.clock;
    uint64_t now_ns = clock->monotonic_ns(clock->context);
    if (now_ns < state->temperature_due_ns)
        return 0;
    state->temperature_due_ns = now_ns + TEMPERATURE_PERIOD_NS;
    int error = 0;
    double hottest = NAN;
    for (int i = 0; i < state->sensor_count; i++) {
        double celsius;
        int sensor_error = read_sensor(state, state->sensors[i], &celsius);
        if (sensor_error != 0)
            error = sensor_error;
        else if (!(hottest >= celsius)) /* true for the NaN of the beginning, too */
            hottest = celsius;
    }
    *column = hottest;
    return isnan(hottest) ? error : 0;
}

/* ---- what this machine has ---------------------------------------------- */

static void energy_close(void *opaque)
{
    energy_state *state = opaque;
    for (int i = 0; i < state->domain_count; i++) {
        smn_procfile_release(&state->domains[i].file);
        free(state->domains[i].path);
    }
    for (int i = 0; i < state->sensor_count; i++)
        free(state->sensors[i]);
    free(state->domains);
    free(state->sensors);
    free(state);
}

/* NULL if there is no such folder. */
static DIR *open_folder(const smn_environment *environment, const char *path)
{
    int fd = openat(environment->sysfs, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL && fd >= 0)
        close(fd);
    return folder;
}

/* Room for one more in a list of `count`. */
static int grow(void **list, int count, size_t size)
{
    void *grown = realloc(*list, ((size_t)count + 1) * size);
    if (grown == NULL)
        return -ENOMEM;
    *list = grown;
    return 0;
}

/* "intel-rapl:1", but not "intel-rapl:1:0". */
static bool is_domain(const char *name)
{
    static const char prefix[] = "intel-rapl:";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return false;
    const char *digits = name + sizeof prefix - 1;
    return *digits != '\0' && strspn(digits, "0123456789") == strlen(digits);
}

/* The number in "package-1\n" or "package-1-die-0\n". */
static int parse_package(smn_cursor text, int *package)
{
    int number = 0;
    smn_cursor line;
    if (!smn_scan_line(&text, &line) || !smn_scan_key(&line, "package-"))
        return -ENODATA;
    const char *digits = line.at;
    for (; *line.at >= '0' && *line.at <= '9' && number < 10000; line.at++)
        number = number * 10 + (*line.at - '0');
    if (line.at == digits || (*line.at != '\n' && *line.at != '-'))
        return -ENODATA;
    *package = number;
    return 0;
}

/* -ENODATA: none of ours, or not to be read. */
static int describe_domain(const smn_environment *environment, const char *name, domain *it)
{
    char path[PATH_MAX];
    smn_cursor text;
    snprintf(path, sizeof path, "%s/%s/name", POWERCAP, name);
    if (read_small(environment, path, &text) != 0 || parse_package(text, &it->package) != 0)
        return -ENODATA;
    snprintf(path, sizeof path, "%s/%s/max_energy_range_uj", POWERCAP, name);
    if (read_number(environment, path, &it->range) != 0)
        return -ENODATA;
    uint64_t energy;
    snprintf(path, sizeof path, "%s/%s/energy_uj", POWERCAP, name);
    if (read_number(environment, path, &energy) != 0)
        return -ENODATA;
    it->path = strdup(path);
    return it->path != NULL ? 0 : -ENOMEM;
}

static int compare_domains(const void *left, const void *right)
{
    const domain *a = left;
    const domain *b = right;
    int order = (a->package > b->package) - (a->package < b->package);
    return order != 0 ? order : strcmp(a->path, b->path);
}

static int find_domains(energy_state *state)
{
    DIR *folder = open_folder(&state->environment, POWERCAP);
    if (folder == NULL)
        return 0;
    int error = 0;
    for (struct dirent *entry; error == 0 && (entry = readdir(folder)) != NULL;) {
        domain found = {0};
        if (!is_domain(entry->d_name))
            continue;
        error = describe_domain(&state->environment, entry->d_name, &found);
        if (error == -ENODATA) {
            error = 0;
            continue;
        }
        if (error == 0)
            error = grow((void **)&state->domains, state->domain_count, sizeof found);
        if (error == 0)
            state->domains[state->domain_count++] = found;
        else
            free(found.path);
    }
    closedir(folder);
    return error;
}

/* Gives each package a column; the files can be opened now that nothing moves any more. */
static void order_domains(energy_state *state)
{
    if (state->domain_count > 0)
        qsort(state->domains, (size_t)state->domain_count, sizeof *state->domains, compare_domains);
    for (int i = 0; i < state->domain_count; i++) {
        domain *it = &state->domains[i];
        if (i == 0 || it->package != it[-1].package)
            state->package_count++;
        it->column = state->package_count - 1;
        smn_procfile_init(&it->file, state->environment.sysfs, it->path, state->environment.text);
    }
}

static bool has_cpu_sensors(const smn_environment *environment, const char *name)
{
    static const char *const drivers[] = {"coretemp\n", "k10temp\n", "zenpower\n"};
    char path[PATH_MAX];
    smn_cursor text;
    snprintf(path, sizeof path, "%s/%s/name", HWMON, name);
    if (read_small(environment, path, &text) != 0)
        return false;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        if (smn_scan_key(&text, drivers[i]))
            return true;
    }
    return false;
}

/* "temp12_input" */
static bool is_sensor(const char *name)
{
    if (strncmp(name, "temp", 4) != 0)
        return false;
    size_t digits = strspn(name + 4, "0123456789");
    return digits > 0 && strcmp(name + 4 + digits, "_input") == 0;
}

static int add_sensor(energy_state *state, const char *folder, const char *name)
{
    char *path;
    int error = grow((void **)&state->sensors, state->sensor_count, sizeof *state->sensors);
    if (error != 0)
        return error;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return -ENOMEM;
    state->sensors[state->sensor_count++] = path;
    return 0;
}

static int find_sensors_of(energy_state *state, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", HWMON, name);
    DIR *folder = open_folder(&state->environment, path);
    if (folder == NULL)
        return 0;
    int error = 0;
    for (struct dirent *entry; error == 0 && (entry = readdir(folder)) != NULL;) {
        if (is_sensor(entry->d_name))
            error = add_sensor(state, path, entry->d_name);
    }
    closedir(folder);
    return error;
}

static int find_sensors(energy_state *state)
{
    DIR *folder = open_folder(&state->environment, HWMON);
    if (folder == NULL)
        return 0;
    int error = 0;
    for (struct dirent *entry; error == 0 && (entry = readdir(folder)) != NULL;) {
        if (has_cpu_sensors(&state->environment, entry->d_name))
            error = find_sensors_of(state, entry->d_name);
    }
    closedir(folder);
    return error;
}

/* ---- the source --------------------------------------------------------- */

static int declare_package(smn_schema *schema, int package, int column)
{
    int error = 0;
    for (int i = 0; i < OF_PACKAGE && error == 0; i++) {
        smn_series_spec spec = series[i];
        spec.numerator = column;
        error = smn_schema_add_numbered(schema, &spec, package, 0);
    }
    return error;
}

/* Behind the packages; unknown where no sensor can be read. */
static int declare_temperature(energy_state *state, smn_schema *schema)
{
    double celsius = NAN;
    (void)read_temperature(state, &celsius);
    state->temperature_due_ns = 0; /* that was not the first reading yet */
    state->has_temperature = !isnan(celsius);
    smn_series_spec spec = series[OF_PACKAGE];
    spec.numerator = state->package_count;
    return state->has_temperature ? smn_schema_add_series(schema, &spec) : 0;
}

static int declare(energy_state *state, smn_schema *schema)
{
    int error = 0;
    for (int i = 0; i < state->domain_count && error == 0; i++) {
        const domain *it = &state->domains[i];
        if (i == 0 || it->package != it[-1].package)
            error = declare_package(schema, it->package, it->column);
    }
    return error == 0 ? declare_temperature(state, schema) : error;
}

static int energy_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    energy_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->environment = *environment;
    int error = find_domains(state);
    if (error == 0)
        error = find_sensors(state);
    order_domains(state);
    if (error == 0)
        error = declare(state, schema);
    if (error == 0 && state->package_count == 0 && !state->has_temperature)
        error = -ENODATA;
    if (error != 0) {
        energy_close(state);
        return error;
    }
    smn_schema_add_columns(schema, state->package_count + 1);
    *opaque = state;
    return 0;
}

static int energy_sample(void *opaque, double *columns)
{
    energy_state *state = opaque;
    int error = read_packages(state, columns);
    int temperature_error = 0;
    if (state->has_temperature)
        temperature_error = read_temperature(state, &columns[state->package_count]);
    return error != 0 ? error : temperature_error;
}

const smn_source smn_source_energy = {
    .name = "energy",
    .min_interval_ns = 100000000, /* each reading interrupts a core of the package */
    .open = energy_open,
    .sample = energy_sample,
    .close = energy_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};
