/* The flight recorder: the file as bytes, what happens when it cannot be written, and forks. */
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "rig.h"
#include "self.h"

enum {
    COLUMNS = 3,
    WORDS = 1 + 3 + COLUMNS + 1,
    BYTES = 8 * WORDS,
    DATA_OFFSET = 128
};

static const uint64_t SECOND = 1000000000;

/* A file without a name. */
static int new_file(void)
{
    FILE *file = tmpfile();
    REQUIRE(file != NULL);
    int fd = fcntl(fileno(file), F_DUPFD_CLOEXEC, 0);
    REQUIRE(fd >= 0 && fclose(file) == 0);
    return fd;
}

static uint64_t bytes_of(int fd)
{
    struct stat status;
    REQUIRE(fstat(fd, &status) == 0);
    return (uint64_t)status.st_size;
}

/* What docs/recording-format.md says, once more. */
static uint64_t expected_checksum(const uint64_t *words, int count)
{
    uint64_t sum = 14695981039346656037u;
    for (int i = 0; i < count; i++) {
        sum = (sum ^ words[i]) * 1099511628211u;
        sum = sum ^ (sum >> 32);
    }
    return sum;
}

static bool read_record(int fd, uint64_t slot, uint64_t words[WORDS])
{
    ssize_t got = pread(fd, words, BYTES, (off_t)(DATA_OFFSET + slot * BYTES));
    return got == BYTES && words[WORDS - 1] == expected_checksum(words, WORDS - 1);
}

static double as_double(uint64_t word)
{
    double value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* A row that is recognised by any part of it. */
static void append(smn_recorder *recorder, uint64_t number)
{
    const smn_row_time time = {number + 7, number * 10, -(int64_t)number};
    const double columns[COLUMNS] = {(double)number, (double)number + 0.25, NAN};
    smn_recorder_append(recorder, &time, columns);
}

static bool is_row(uint64_t number, const uint64_t words[WORDS])
{
    return words[0] == number && words[1] == number + 7 && words[2] == number * 10 &&
           (int64_t)words[3] == -(int64_t)number && as_double(words[4]) >= (double)number &&
           as_double(words[5]) <= (double)number + 0.25 && isnan(as_double(words[6]));
}

static void check_counts(const smn_recorder *recorder, uint64_t rows, uint64_t errors, int error)
{
    CHECK_U64(atomic_load(&recorder->rows), rows);
    CHECK_U64(atomic_load(&recorder->errors), errors);
    CHECK_INT(atomic_load(&recorder->last_error), error);
}

/* The format that other programs read: a change here is a new version. */
static void test_layout(void)
{
    int fd = new_file();
    smn_recorder recorder;
    REQUIRE(smn_recorder_open(&recorder, fd, DATA_OFFSET, 5, COLUMNS) == 0);
    for (uint64_t number = 0; number < 12; number++) {
        check_case("row %d", (int)number);
        append(&recorder, number);
        uint64_t words[WORDS];
        CHECK(read_record(fd, number % 5, words));
        CHECK(is_row(number, words));
        uint64_t slots = number < 5 ? number + 1 : 5; /* it grows as rows come, and no further */
        CHECK_U64(bytes_of(fd), DATA_OFFSET + slots * BYTES);
        if (number > 0) { /* the one before is left alone */
            CHECK(read_record(fd, (number - 1) % 5, words));
            CHECK(is_row(number - 1, words));
        }
    }
    check_case(NULL);
    check_counts(&recorder, 12, 0, 0);
    smn_recorder_release(&recorder);
    CHECK_INT(fcntl(fd, F_GETFD), -1);
    smn_recorder_release(&recorder); /* once is enough, twice is no harm */
}

/* No change of a record goes unseen that a bad disk makes: any bit, any two sign bits. */
static void test_checksum(void)
{
    uint64_t words[WORDS] = {0};
    int fd = new_file();
    smn_recorder recorder;
    REQUIRE(smn_recorder_open(&recorder, fd, DATA_OFFSET, 5, COLUMNS) == 0);
    CHECK(expected_checksum(words, WORDS - 1) != 0); /* a hole in the file is no record */
    append(&recorder, 3);
    CHECK(read_record(fd, 0, words));
    for (int bit = 0; bit < 64 * WORDS; bit++) {
        check_case("bit %d", bit);
        words[bit / 64] ^= UINT64_C(1) << bit % 64;
        CHECK(words[WORDS - 1] != expected_checksum(words, WORDS - 1));
        words[bit / 64] ^= UINT64_C(1) << bit % 64;
    }
    for (int one = 0; one < WORDS; one++) {
        for (int other = 0; other < one; other++) {
            check_case("signs of %d and %d", one, other);
            words[one] ^= UINT64_C(1) << 63;
            words[other] ^= UINT64_C(1) << 63;
            CHECK(words[WORDS - 1] != expected_checksum(words, WORDS - 1));
            words[one] ^= UINT64_C(1) << 63;
            words[other] ^= UINT64_C(1) << 63;
        }
    }
    check_case(NULL);
    smn_recorder_release(&recorder);
}

static void test_wrong_arguments(void)
{
    const uint64_t most = (uint64_t)INT64_MAX / BYTES;
    const struct {
        const char *what;
        bool open;
        uint64_t data_offset;
        uint64_t capacity;
    } cases[] = {
        {"no file", false, DATA_OFFSET, 5},
        {"no room", true, DATA_OFFSET, 0},
        {"a ring that ends beyond any file", true, 0, most + 1},
        {"a ring that ends beyond any number", true, DATA_OFFSET, UINT64_MAX},
        {"a ring that begins beyond any file", true, (uint64_t)INT64_MAX + 1, 1},
    };
    int fd = new_file();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        smn_recorder recorder;
        smn_recorder_init(&recorder);
        CHECK_INT(smn_recorder_open(&recorder, cases[i].open ? fd : -1, cases[i].data_offset,
                                    cases[i].capacity, COLUMNS),
                  -EINVAL);
        append(&recorder, 0); /* it records nothing */
        check_counts(&recorder, 0, 0, 0);
        smn_recorder_release(&recorder);
        CHECK(fcntl(fd, F_GETFD) >= 0); /* still ours */
    }
    check_case(NULL);
    CHECK_U64(bytes_of(fd), 0);
    close(fd);
}

/* ---- files that cannot be written --------------------------------------- */

static void test_full_disk(void)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    REQUIRE(full >= 0);
    smn_recorder recorder;
    REQUIRE(smn_recorder_open(&recorder, full, DATA_OFFSET, 5, COLUMNS) == 0);
    for (uint64_t number = 0; number < 7; number++)
        append(&recorder, number);
    check_counts(&recorder, 0, 7, -ENOSPC);
    smn_recorder_release(&recorder);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* Room for two records and a half, later for all: what did not fit is absent, the rest is there. */
static void test_disk_that_is_full_for_a_while(void)
{
    sigset_t too_large;
    sigemptyset(&too_large);
    sigaddset(&too_large, SIGXFSZ);
    REQUIRE(pthread_sigmask(SIG_BLOCK, &too_large, NULL) == 0); /* as the sampling thread has it */
    int fd = new_file();
    smn_recorder recorder;
    REQUIRE(smn_recorder_open(&recorder, fd, DATA_OFFSET, 10, COLUMNS) == 0);
    limit_file_size(DATA_OFFSET + 2 * BYTES + BYTES / 2);
    for (uint64_t number = 0; number < 3; number++)
        append(&recorder, number);
    check_counts(&recorder, 2, 1, -ENOSPC); /* written in part */
    append(&recorder, 3);
    check_counts(&recorder, 2, 2, -EFBIG);
    limit_file_size(RLIM_INFINITY);
    append(&recorder, 4);
    check_counts(&recorder, 3, 2, -EFBIG);
    for (uint64_t slot = 0; slot < 5; slot++) {
        check_case("slot %d", (int)slot);
        uint64_t words[WORDS];
        CHECK(read_record(fd, slot, words) == (slot < 2 || slot == 4));
        if (slot < 2 || slot == 4)
            CHECK(is_row(slot, words));
    }
    check_case(NULL);
    smn_recorder_release(&recorder);
}

static void test_read_only_file(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(null >= 0);
    smn_recorder recorder;
    REQUIRE(smn_recorder_open(&recorder, null, 0, 1, COLUMNS) == 0);
    append(&recorder, 0);
    check_counts(&recorder, 0, 1, -EBADF);
    smn_recorder_release(&recorder);
}

/* ---- the sampler -------------------------------------------------------- */

static void check_counters(const sampler_rig *rig, uint64_t rows, uint64_t errors, int error)
{
    smn_counters counters;
    CHECK_INT(smn_sampler_counters(rig->sampler, &counters), 0);
    CHECK_U64(counters.recorded_rows, rows);
    CHECK_U64(counters.record_errors, errors);
    CHECK_INT(counters.last_record_error, error);
}

/* Every row from the first reading to the last, and the file is closed when all is over. */
static void test_rows_of_a_sampler(void)
{
    int fd = new_file();
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    REQUIRE(kept >= 0);
    sampler_rig rig;
    rig_open(&rig, "memory", SECOND, 2);
    CHECK_INT(smn_sampler_columns(rig.sampler), 2);
    CHECK_INT(smn_sampler_record(rig.sampler, -1, 0, 5), -EINVAL);
    CHECK_INT(smn_sampler_record(rig.sampler, fd, 0, 5), 0);
    CHECK_INT(smn_sampler_record(rig.sampler, fd, 0, 5), -EALREADY);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    CHECK_INT(smn_sampler_record(rig.sampler, fd, 0, 5), -EALREADY);
    rig_set_memory(&rig, 500, 1000);
    rig_tick(&rig, 1);
    tree_write_text(&rig.tree, "meminfo", "");
    fake_clock_step_wall(&rig.clock, -5);
    rig_tick(&rig, 2);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    check_counters(&rig, 5, 0, 0);
    CHECK(fcntl(fd, F_GETFD) >= 0);

    uint64_t words[5][7]; /* sequence, three of time, two columns, checksum */
    REQUIRE(pread(kept, words, sizeof words, 0) == (ssize_t)sizeof words);
    for (uint64_t row = 0; row < 5; row++) {
        check_case("row %d", (int)row);
        uint64_t ticks = row < 4 ? row : 3; /* the last reading comes between two ticks */
        CHECK_U64(words[row][0], row);
        CHECK_U64(words[row][1], ticks);
        CHECK_U64(words[row][2], 1000 * SECOND + ticks * SECOND);
        CHECK_U64(words[row][3], 1700000000 * SECOND + ticks * SECOND - (row < 2 ? 0 : 5));
        CHECK_DOUBLE(as_double(words[row][5]), row == 0 ? 25.0 : row == 1 ? 50.0 : CHECK_NAN);
        CHECK_U64(words[row][6], expected_checksum(words[row], 6));
    }
    check_case(NULL);
    smn_sampler_destroy(rig.sampler);
    rig.sampler = NULL;
    CHECK_INT(fcntl(fd, F_GETFD), -1);
    close(kept);
    rig_close(&rig);
}

static void test_sampler_on_a_full_disk(void)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    REQUIRE(full >= 0);
    sampler_rig rig;
    rig_open(&rig, "cpu", SECOND, 1);
    check_counters(&rig, 0, 0, 0);
    CHECK_INT(smn_sampler_record(rig.sampler, full, 0, 5), 0);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 3);
    for (int i = 0; i < 3; i++)
        CHECK_INT(rig_take(&rig), 0);
    check_counters(&rig, 0, 4, -ENOSPC);
    rig_close(&rig);
}

/* A child can neither record nor disturb what is recorded. */
static void test_child(void)
{
    int fd = new_file();
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    REQUIRE(kept >= 0);
    sampler_rig rig;
    sampler_rig idle;
    rig_open(&rig, "memory", SECOND, 1);
    rig_open(&idle, "memory", SECOND, 1);
    CHECK_INT(smn_sampler_record(rig.sampler, fd, 0, 100), 0);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 1);
    int open_files = self_open_files();
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int wrong = smn_sampler_record(idle.sampler, kept, 0, 100) != -ECHILD;
        smn_sampler_destroy(rig.sampler);
        wrong |= (fcntl(fd, F_GETFD) != -1) << 1; /* its copy is given back */
        _exit(wrong);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
    CHECK_INT(self_open_files(), open_files);
    rig_tick(&rig, 1);
    check_counters(&rig, 3, 0, 0);
    CHECK_U64(bytes_of(kept), 3 * 7 * 8);
    close(kept);
    rig_close(&idle);
    rig_close(&rig);
}

/* ---- a reader beside the writer ----------------------------------------- */

enum {
    SLOTS = 16,
    READINGS = 200000
};

typedef struct {
    int fd;
    _Atomic bool done;
    uint64_t whole;
    uint64_t wrong; /* whole by its checksum, and yet no row that was written */
} witness;

static void *read_all_the_time(void *opaque)
{
    witness *reader = opaque;
    for (uint64_t i = 0; i < READINGS; i++) {
        uint64_t words[WORDS];
        if (!read_record(reader->fd, i % SLOTS, words))
            continue;
        reader->whole++;
        if (words[0] % SLOTS != i % SLOTS || !is_row(words[0], words))
            reader->wrong++;
    }
    atomic_store(&reader->done, true);
    return NULL;
}

static void test_beside_a_reader(void)
{
    witness reader = {.fd = new_file()};
    smn_recorder recorder;
    int fd = fcntl(reader.fd, F_DUPFD_CLOEXEC, 0);
    REQUIRE(smn_recorder_open(&recorder, fd, DATA_OFFSET, SLOTS, COLUMNS) == 0);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, read_all_the_time, &reader) == 0);
    uint64_t rows = 0;
    while (!atomic_load(&reader.done))
        append(&recorder, rows++);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_U64(reader.wrong, 0);
    CHECK(reader.whole > 0);
    check_counts(&recorder, rows, 0, 0);
    printf("%llu rows written, %d read, %llu of them whole\n", (unsigned long long)rows, READINGS,
           (unsigned long long)reader.whole);
    smn_recorder_release(&recorder);
    close(reader.fd);
}

int main(void)
{
    test_layout();
    test_checksum();
    test_wrong_arguments();
    test_full_disk();
    test_disk_that_is_full_for_a_while();
    test_read_only_file();
    test_rows_of_a_sampler();
    test_sampler_on_a_full_disk();
    test_child();
    test_beside_a_reader();
    return check_report();
}
