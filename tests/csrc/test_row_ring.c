/* The ring of rows: its limits, and readers beside the writer. */
#include "row_ring.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "chance.h"
#include "check.h"

enum {
    COLUMNS = 3
};

static void make_ring(smn_row_ring *ring, uint64_t capacity)
{
    REQUIRE(smn_row_ring_create(ring, COLUMNS, capacity) == 0);
}

/* A row that is recognised by any part of it. */
static void append(smn_row_ring *ring, uint64_t number)
{
    smn_row_time time = {number, number * 10, -(int64_t)number};
    double columns[COLUMNS];
    for (int i = 0; i < COLUMNS; i++)
        columns[i] = (double)number + i * 0.25;
    smn_row_ring_append(ring, &time, columns);
}

static bool is_row(uint64_t number, const smn_row_time *time, const double *columns)
{
    bool same = time->tick == number && time->monotonic_ns == number * 10 &&
                time->wall_ns == -(int64_t)number;
    for (int i = 0; i < COLUMNS; i++)
        same = same && columns[i] >= (double)number + i * 0.25 &&
               columns[i] <= (double)number + i * 0.25;
    return same;
}

static void test_limits(void)
{
    static const uint64_t capacities[] = {1, 2, 3, 8, 100};
    for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++) {
        uint64_t capacity = capacities[c];
        smn_row_ring ring;
        make_ring(&ring, capacity);
        smn_row_time time;
        double columns[COLUMNS];
        CHECK_U64(smn_row_ring_head(&ring), 0);
        CHECK_INT(smn_row_ring_read(&ring, 0, &time, columns), -ENOENT);
        for (uint64_t head = 1; head <= 3 * capacity + 1; head++) {
            append(&ring, head - 1);
            CHECK_U64(smn_row_ring_head(&ring), head);
            for (uint64_t index = 0; index <= head + 1; index++) {
                check_case("capacity %d, head %d, row %d", (int)capacity, (int)head, (int)index);
                int error = smn_row_ring_read(&ring, index, &time, columns);
                if (index >= head) {
                    CHECK_INT(error, -ENOENT);
                } else if (head - index >= capacity) {
                    /* Also when equal: that slot may be the one being written. */
                    CHECK_INT(error, -ESTALE);
                } else {
                    CHECK_INT(error, 0);
                    CHECK(is_row(index, &time, columns));
                }
            }
            CHECK_INT(smn_row_ring_read(&ring, UINT64_MAX, &time, columns), -ENOENT);
        }
        smn_row_ring_release(&ring);
    }
    check_case(NULL);
}

static void test_absent_values(void)
{
    smn_row_ring ring;
    make_ring(&ring, 4);
    const smn_row_time time = {1, 2, 3};
    const double columns[COLUMNS] = {NAN, INFINITY, -0.0};
    smn_row_ring_append(&ring, &time, columns);
    smn_row_time read_time;
    double read_columns[COLUMNS];
    CHECK_INT(smn_row_ring_read(&ring, 0, &read_time, read_columns), 0);
    CHECK(memcmp(columns, read_columns, sizeof columns) == 0);
    smn_row_ring_release(&ring);
}

static void test_too_large(void)
{
    static const uint64_t capacities[] = {UINT64_MAX, UINT64_MAX / 48, UINT64_C(1) << 57};
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        smn_row_ring ring;
        CHECK_INT(smn_row_ring_create(&ring, COLUMNS, capacities[i]), -ENOMEM);
        smn_row_ring_release(&ring); /* once is enough, but no harm after a failure either */
    }
}

/* ---- a writer and its readers ------------------------------------------- */

enum {
    READERS = 2,
    CAPACITY = 16,
    READINGS = 800000 /* of each reader */
};

typedef struct {
    smn_row_ring ring;
    _Atomic int readers_left;
    _Atomic uint64_t stale;
    _Atomic uint64_t torn;
} contest;

static void *read_all_the_time(void *opaque)
{
    contest *match = opaque;
    chance_state chance = {42};
    uint64_t stale = 0;
    uint64_t torn = 0;
    for (int i = 0; i < READINGS; i++) {
        uint64_t head = smn_row_ring_head(&match->ring);
        /* Most often the oldest ones, which the writer is about to overwrite. */
        uint64_t age = CAPACITY - 1 - chance_below(&chance, i % 8 == 0 ? CAPACITY - 1 : 2);
        smn_row_time time;
        double columns[COLUMNS];
        int error = smn_row_ring_read(&match->ring, head - age, &time, columns);
        if (error == -ESTALE)
            stale++;
        else if (error != 0 || !is_row(head - age, &time, columns))
            torn++;
    }
    atomic_fetch_add(&match->stale, stale);
    atomic_fetch_add(&match->torn, torn);
    atomic_fetch_sub(&match->readers_left, 1);
    return NULL;
}

/* The writer writes as long as anybody reads; no row that is read may be mixed of two. */
static void test_beside_a_writer(void)
{
    contest match = {.readers_left = READERS};
    make_ring(&match.ring, CAPACITY);
    uint64_t rows = 0;
    while (rows < CAPACITY)
        append(&match.ring, rows++);
    pthread_t readers[READERS];
    for (int i = 0; i < READERS; i++)
        REQUIRE(pthread_create(&readers[i], NULL, read_all_the_time, &match) == 0);
    while (atomic_load(&match.readers_left) > 0)
        append(&match.ring, rows++);
    for (int i = 0; i < READERS; i++)
        REQUIRE(pthread_join(readers[i], NULL) == 0);
    CHECK_U64(atomic_load(&match.torn), 0);
    CHECK_U64(smn_row_ring_head(&match.ring), rows);
    printf("%llu rows written, %d read, %llu of them stale\n", (unsigned long long)rows,
           READERS * READINGS, (unsigned long long)atomic_load(&match.stale));
    smn_row_ring_release(&match.ring);
}

int main(void)
{
    test_limits();
    test_absent_values();
    test_too_large();
    test_beside_a_writer();
    return check_report();
}
