/* Closed windows between one writer and its readers: none lost, none twice. */
#include "window_queue.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "self.h"

enum {
    SERIES = 2
};

static smn_schema schema;

static void make_schema(void)
{
    static const smn_series_spec specs[SERIES] = {
        {"one", "u", SMN_GAUGE, 0, 0, 1.0, 0.0},
        {"two", "u", SMN_RATIO, 0, 1, 1.0, 0.0},
    };
    smn_schema_begin_source(&schema, "test");
    smn_schema_add_columns(&schema, 2);
    REQUIRE(smn_schema_add_all(&schema, specs, SERIES) == 0);
}

static smn_window_record *new_record(void)
{
    smn_window_record *record = calloc(1, smn_window_record_bytes(&schema));
    REQUIRE(record != NULL);
    return record;
}

/* The window number `i` of a series in which every one has one row. */
static void make_window(smn_window_record *record, uint64_t number)
{
    double value = (double)number;
    record->head = (smn_window_head){.end_wall_ns = (int64_t)number,
                                     .length_ns = 10,
                                     .samples = 1,
                                     .missed = number % 3,
                                     .first_row = number};
    for (int s = 0; s < SERIES; s++)
        record->summaries[s] = (smn_summary){value, value, value + s, 1, value, value, value, 1};
}

/* Whether it is what windows [first_row, first_row + samples) make, with no word of another. */
static bool is_run_of_windows(const smn_window_record *record)
{
    uint64_t first = record->head.first_row;
    uint64_t count = record->head.samples;
    uint64_t last = first + count - 1;
    double sum = 0.0;
    uint64_t missed = 0;
    for (uint64_t number = first; number <= last; number++) {
        sum += (double)number;
        missed += number % 3;
    }
    bool same = record->head.end_wall_ns == (int64_t)last && record->head.length_ns == 10 * count &&
                record->head.merged == count - 1 && record->head.missed == missed &&
                record->head.partial == 0;
    for (int s = 0; s < SERIES; s++) {
        const smn_summary *summary = &record->summaries[s];
        const double expected[] = {(double)first, (double)first, sum + s * (double)count,
                                   (double)count, (double)first, (double)last,
                                   (double)last};
        same = same && memcmp(summary, expected, sizeof expected) == 0 && summary->values == count;
    }
    return same;
}

static void push(smn_window_queue *queue, uint64_t number)
{
    smn_window_record *record = new_record();
    make_window(record, number);
    smn_window_queue_push(queue, record);
    free(record);
}

/* Pops a window that must be made of these. */
static void check_pop(smn_window_queue *queue, uint64_t first, uint64_t count)
{
    smn_window_record *record = new_record();
    if (CHECK_INT(smn_window_queue_pop(queue, record), 0)) {
        CHECK_U64(record->head.first_row, first);
        CHECK_U64(record->head.samples, count);
        CHECK(is_run_of_windows(record));
    }
    free(record);
}

static void check_empty(smn_window_queue *queue)
{
    smn_window_record *record = new_record();
    CHECK_INT(smn_window_queue_pop(queue, record), -EAGAIN);
    free(record);
}

static void test_in_and_out(void)
{
    smn_window_queue queue = {0};
    REQUIRE(smn_window_queue_init(&queue, &schema, 4) == 0);
    check_empty(&queue);
    uint64_t pushed = 0;
    uint64_t popped = 0;
    for (uint64_t held = 1; held <= 4; held++) {
        for (int round = 0; round < 10; round++) {
            while (pushed - popped < held)
                push(&queue, pushed++);
            check_pop(&queue, popped++, 1);
        }
    }
    while (popped < pushed)
        check_pop(&queue, popped++, 1);
    check_empty(&queue);
    CHECK_U64(atomic_load(&queue.merged), 0);
    smn_window_queue_release(&queue);
    smn_window_queue_release(&queue);
}

/* What does not fit is folded into the oldest window, and that only. */
static void test_full(void)
{
    for (uint64_t capacity = 2; capacity <= 5; capacity++) {
        for (uint64_t extra = 0; extra < 12; extra++) {
            check_case("%d places, %d too many", (int)capacity, (int)extra);
            smn_window_queue queue = {0};
            REQUIRE(smn_window_queue_init(&queue, &schema, capacity) == 0);
            for (uint64_t number = 0; number < capacity + extra; number++)
                push(&queue, number);
            CHECK_U64(atomic_load(&queue.merged), extra);
            check_pop(&queue, 0, extra + 1);
            for (uint64_t number = extra + 1; number < capacity + extra; number++)
                check_pop(&queue, number, 1);
            check_empty(&queue);
            /* And on as if nothing had been. */
            push(&queue, 77);
            check_pop(&queue, 77, 1);
            check_empty(&queue);
            smn_window_queue_release(&queue);
        }
    }
    check_case(NULL);
}

static void test_waiting(void)
{
    smn_window_queue queue = {0};
    REQUIRE(smn_window_queue_init(&queue, &schema, 4) == 0);
    uint32_t seen = atomic_load(&queue.changes);
    CHECK_INT(smn_window_queue_wait(&queue, seen, 0), -ETIMEDOUT);
    push(&queue, 0);
    CHECK(atomic_load(&queue.changes) != seen);
    CHECK_INT(smn_window_queue_wait(&queue, seen, SMN_NEVER), 0);
    seen = atomic_load(&queue.changes);
    smn_window_queue_notify(&queue);
    CHECK_INT(smn_window_queue_wait(&queue, seen, SMN_NEVER), 0);
    CHECK_U64(atomic_load(&queue.waiters), 0);
    smn_window_queue_release(&queue);
}

static void test_no_memory(void)
{
    smn_window_queue queue = {0};
    CHECK_INT(smn_window_queue_init(&queue, &schema, UINT64_C(1) << 40), -ENOMEM);
    smn_window_queue_release(&queue);
}

/* ---- a writer and its readers ------------------------------------------- */

enum {
    MOST_READERS = 2,
    WINDOWS = 20000
};

typedef struct {
    smn_window_queue *queue;
    _Atomic uint32_t *finished;
    bool waits;    /* sleeps for windows, or asks again and again */
    bool in_order; /* what came out so far did so in order of time … */
    bool whole;    /* … and was not mixed of several windows */
    uint64_t windows;
    unsigned char *seen; /* how often each number was in a window */
} window_reader;

static bool take_one(window_reader *reader, smn_window_record *record, uint64_t *next)
{
    if (smn_window_queue_pop(reader->queue, record) != 0)
        return false;
    reader->in_order = reader->in_order && record->head.first_row >= *next;
    reader->whole = reader->whole && is_run_of_windows(record);
    *next = record->head.first_row + record->head.samples;
    reader->windows++;
    for (uint64_t number = record->head.first_row; number < *next && number < WINDOWS; number++)
        reader->seen[number]++;
    return true;
}

static void *read_all(void *opaque)
{
    window_reader *reader = opaque;
    smn_window_record *record = new_record();
    uint64_t next = 0;
    for (;;) {
        uint32_t changes = atomic_load(&reader->queue->changes);
        bool finished = atomic_load(reader->finished) != 0;
        if (take_one(reader, record, &next))
            continue;
        if (finished)
            break;
        if (reader->waits)
            (void)smn_window_queue_wait(reader->queue, changes, SMN_NEVER);
        else
            sched_yield();
    }
    free(record);
    return NULL;
}

static void run_contest(int readers, uint64_t capacity, bool waits, bool writer_is_slow)
{
    smn_window_queue queue = {0};
    REQUIRE(smn_window_queue_init(&queue, &schema, capacity) == 0);
    _Atomic uint32_t finished = 0;
    window_reader all[MOST_READERS];
    pthread_t threads[MOST_READERS];
    for (int i = 0; i < readers; i++) {
        all[i] = (window_reader){.queue = &queue,
                                 .finished = &finished,
                                 .waits = waits,
                                 .in_order = true,
                                 .whole = true,
                                 .seen = calloc(WINDOWS, 1)};
        REQUIRE(all[i].seen != NULL);
        REQUIRE(pthread_create(&threads[i], NULL, read_all, &all[i]) == 0);
    }
    smn_window_record *record = new_record();
    for (uint64_t number = 0; number < WINDOWS; number++) {
        make_window(record, number);
        smn_window_queue_push(&queue, record);
        if (writer_is_slow && number % 256 == 0)
            sched_yield();
    }
    free(record);
    atomic_store(&finished, 1);
    smn_window_queue_notify(&queue);
    uint64_t windows = 0;
    for (int i = 0; i < readers; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK(all[i].in_order);
        CHECK(all[i].whole);
        windows += all[i].windows;
    }
    uint64_t lost = 0;
    uint64_t repeated = 0;
    for (size_t number = 0; number < WINDOWS; number++) {
        int times = 0;
        for (int i = 0; i < readers; i++)
            times += all[i].seen[number];
        lost += times == 0;
        repeated += times > 1;
    }
    CHECK_U64(lost, 0);
    CHECK_U64(repeated, 0);
    CHECK_U64(windows + atomic_load(&queue.merged), WINDOWS);
    printf("%d readers, %d places: %llu windows, %llu merged\n", readers, (int)capacity,
           (unsigned long long)windows, (unsigned long long)atomic_load(&queue.merged));
    for (int i = 0; i < readers; i++)
        free(all[i].seen);
    smn_window_queue_release(&queue);
}

static void test_beside_a_writer(void)
{
    for (int readers = 1; readers <= MOST_READERS; readers++) {
        for (int waits = 0; waits < 2; waits++) {
            check_case("%d readers, waits: %d", readers, waits);
            run_contest(readers, 2, waits, true);
            run_contest(readers, 4, waits, false);
            run_contest(readers, 64, waits, true);
        }
    }
    check_case(NULL);
}

int main(void)
{
    make_schema();
    test_in_and_out();
    test_full();
    test_waiting();
    test_no_memory();
    test_beside_a_writer();
    smn_schema_release(&schema);
    return check_report();
}
