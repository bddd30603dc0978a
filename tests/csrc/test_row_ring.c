/* The ring of rows: its layout as bytes, its limits, and a reader beside the writer. */
#include "row_ring.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"

enum {
    COLUMNS = 3
};

static const smn_series_spec specs[] = {
    {"load_percentage", "percentage", SMN_RATIO, 0, 1, 100.0, 10.0},
    {"room_megabytes", "megabytes", SMN_GAUGE, 2, 0, 1e-6, 0.0},
};

static void make_schema(smn_schema *schema)
{
    *schema = (smn_schema){0};
    smn_schema_begin_source(schema, "test");
    smn_schema_add_columns(schema, COLUMNS);
    REQUIRE(smn_schema_add_all(schema, specs, sizeof specs / sizeof *specs) == 0);
}

static void make_ring(smn_row_ring *ring, uint64_t capacity)
{
    smn_schema schema;
    make_schema(&schema);
    REQUIRE(smn_row_ring_create(ring, &schema, capacity, 1000000, 100) == 0);
    smn_schema_release(&schema);
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

static uint64_t word_at(const char *bytes, size_t offset)
{
    uint64_t word;
    memcpy(&word, bytes + offset, sizeof word);
    return word;
}

static uint32_t half_word_at(const char *bytes, size_t offset)
{
    uint32_t word;
    memcpy(&word, bytes + offset, sizeof word);
    return word;
}

static double double_at(const char *bytes, size_t offset)
{
    double value;
    memcpy(&value, bytes + offset, sizeof value);
    return value;
}

/* The format that other processes read: a change here is a new version. */
static void test_layout(void)
{
    smn_schema schema;
    smn_row_ring ring;
    make_schema(&schema);
    REQUIRE(smn_row_ring_create(&ring, &schema, 5, 123456789, 77) == 0);
    const char *bytes = (const char *)ring.header;
    CHECK(memcmp(bytes, "SMNROWS", 8) == 0);
    CHECK_U64(half_word_at(bytes, 8), 1);
    CHECK_U64(half_word_at(bytes, 12), 0x01020304);
    uint64_t data = word_at(bytes, 16);
    uint32_t schema_bytes = half_word_at(bytes, 24);
    CHECK_U64(half_word_at(bytes, 28), COLUMNS);
    uint32_t record = half_word_at(bytes, 32);
    CHECK_U64(half_word_at(bytes, 36), 77);
    CHECK_U64(word_at(bytes, 40), 5);
    CHECK_U64(word_at(bytes, 48), 123456789);
    CHECK_U64(word_at(bytes, 56), getpid());
    CHECK_U64(word_at(bytes, 64), 0);
    for (size_t offset = 72; offset < 136; offset += 8)
        CHECK_U64(word_at(bytes, offset), 0);
    CHECK_U64(sizeof(smn_row_header), 136);

    CHECK_U64(record, 8 * (3 + COLUMNS));
    CHECK_U64(data % 4096, 0);
    CHECK(data >= 136 + schema_bytes);
    CHECK_U64(ring.bytes, data + 5 * record);

    char text[512];
    CHECK_U64(smn_schema_text(&schema, text, sizeof text), schema_bytes);
    CHECK(memcmp(bytes + 136, text, schema_bytes) == 0);
    char *line = strndup(bytes + 136, schema_bytes);
    REQUIRE(line != NULL);
    static const char *const words[] = {
        "load_percentage", "percentage", "test", "ratio", "0", "1", "100", "10"};
    char *rest = line;
    char *first = strsep(&rest, "\n");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        CHECK_TEXT(strsep(&first, "\t"), words[i]);
    CHECK(first == NULL);
    CHECK(rest != NULL && strncmp(rest, "room_megabytes\t", 15) == 0);
    free(line);

    for (uint64_t i = 0; i < 7; i++) {
        append(&ring, 100 + i);
        CHECK_U64(word_at(bytes, 64), i + 1);
        size_t slot = (size_t)(data + i % 5 * record);
        CHECK_U64(word_at(bytes, slot), 100 + i);
        CHECK_U64(word_at(bytes, slot + 8), (100 + i) * 10);
        CHECK_INT((int64_t)word_at(bytes, slot + 16), -(int64_t)(100 + i));
        for (size_t c = 0; c < COLUMNS; c++)
            CHECK_DOUBLE(double_at(bytes, slot + 24 + 8 * c), (double)(100 + i) + (double)c * 0.25);
    }
    smn_row_ring_release(&ring);
    smn_row_ring_release(&ring); /* once is enough, twice is no harm */
    smn_schema_release(&schema);
}

/* The text of a schema may end right at a page, with its terminating zero beyond it. */
static void test_schemas_of_any_length(void)
{
    char key[4200];
    for (size_t length = 3870; length < 4110; length++) {
        check_case("key of %zu", length);
        memset(key, 'k', length);
        key[length] = '\0';
        smn_schema schema = {0};
        smn_schema_begin_source(&schema, "s");
        smn_schema_add_columns(&schema, 1);
        smn_series_spec spec = {key, "u", SMN_GAUGE, 0, 0, 1.0, 0.0};
        REQUIRE(smn_schema_add_series(&schema, &spec) == 0);
        smn_row_ring ring;
        REQUIRE(smn_row_ring_create(&ring, &schema, 2, 1, 1) == 0);
        size_t text_end = sizeof *ring.header + ring.header->schema_bytes;
        CHECK(text_end < ring.header->data_offset);
        CHECK(ring.header->data_offset - text_end <= 4096);
        CHECK_INT(((const char *)ring.header)[text_end - 1], '\n');
        CHECK_INT(((const char *)ring.header)[text_end], '\0');
        smn_row_ring_release(&ring);
        smn_schema_release(&schema);
    }
    check_case(NULL);
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
    smn_schema schema;
    smn_row_ring ring;
    make_schema(&schema);
    CHECK_INT(smn_row_ring_create(&ring, &schema, UINT64_MAX, 1, 1), -ENOMEM);
    CHECK_INT(smn_row_ring_create(&ring, &schema, UINT64_MAX / 48, 1, 1), -ENOMEM);
    CHECK_INT(smn_row_ring_create(&ring, &schema, UINT64_C(1) << 57, 1, 1), -ENOMEM);
    smn_schema_release(&schema);
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
    test_layout();
    test_schemas_of_any_length();
    test_limits();
    test_absent_values();
    test_too_large();
    test_beside_a_writer();
    return check_report();
}
