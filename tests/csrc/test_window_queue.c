/* Closed windows between one writer and its readers: none lost, none twice. */
#include "window_queue.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
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
        {"one", "u", SMN_GAUGE, 0, 0, 1.0, 0.0, "", "", ""},
        {"two", "u", SMN_RATIO, 0, 1, 1.0, 0.0, "", "", ""},
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
    MOST_WINDOWS = 20000
};

typedef struct {
    smn_window_queue queue;
    _Atomic uint32_t finished;
    bool waits; /* readers sleep for windows, or ask again and again */
    pthread_barrier_t start;
} contest;

typedef struct {
    contest *match;
    bool in_order; /* what came out so far did so in order of time … */
    bool whole;    /* … and was not mixed of several windows */
    uint64_t windows;
    uint64_t next;
    unsigned char *seen; /* how often each number was in a window */
} window_reader;

static bool take_one(window_reader *reader, smn_window_record *record)
{
    if (smn_window_queue_pop(&reader->match->queue, record) != 0)
        return false;
    uint64_t first = record->head.first_row;
    uint64_t end = first + record->head.samples;
    reader->in_order = reader->in_order && first >= reader->next && end <= MOST_WINDOWS;
    reader->whole = reader->whole && reader->in_order && is_run_of_windows(record);
    reader->next = end;
    reader->windows++;
    for (uint64_t number = first; number < end && number < MOST_WINDOWS; number++)
        reader->seen[number]++;
    return true;
}

static void *read_all(void *opaque)
{
    window_reader *reader = opaque;
    contest *match = reader->match;
    smn_window_record *record = new_record();
    pthread_barrier_wait(&match->start);
    for (;;) {
        uint32_t changes = atomic_load(&match->queue.changes);
        bool finished = atomic_load(&match->finished) != 0;
        if (take_one(reader, record))
            continue;
        if (finished)
            break;
        if (match->waits)
            (void)smn_window_queue_wait(&match->queue, changes, SMN_NEVER);
        else
            sched_yield();
    }
    free(record);
    return NULL;
}

/* Each number was in one window of one reader. */
static void check_numbers(const window_reader *readers, int count, uint64_t numbers)
{
    uint64_t lost = 0;
    uint64_t repeated = 0;
    for (uint64_t number = 0; number < numbers; number++) {
        int times = 0;
        for (int i = 0; i < count; i++)
            times += readers[i].seen[number];
        lost += times == 0;
        repeated += times > 1;
    }
    CHECK_U64(lost, 0);
    CHECK_U64(repeated, 0);
}

/* `before` windows are there when all start at once; the writer then pushes `beside` more. */
static void run_contest(int readers, uint64_t capacity, bool waits, uint64_t before,
                        uint64_t beside)
{
    contest match = {.waits = waits};
    REQUIRE(before + beside <= MOST_WINDOWS);
    REQUIRE(smn_window_queue_init(&match.queue, &schema, capacity) == 0);
    REQUIRE(pthread_barrier_init(&match.start, NULL, (unsigned)readers + 1) == 0);
    window_reader all[MOST_READERS];
    pthread_t threads[MOST_READERS];
    for (int i = 0; i < readers; i++) {
        all[i] = (window_reader){
            .match = &match, .in_order = true, .whole = true, .seen = calloc(MOST_WINDOWS, 1)};
        REQUIRE(all[i].seen != NULL);
        REQUIRE(pthread_create(&threads[i], NULL, read_all, &all[i]) == 0);
    }
    smn_window_record *record = new_record();
    for (uint64_t number = 0; number < before + beside; number++) {
        if (number == before)
            pthread_barrier_wait(&match.start);
        make_window(record, number);
        smn_window_queue_push(&match.queue, record);
    }
    free(record);
    atomic_store(&match.finished, 1);
    smn_window_queue_notify(&match.queue);
    uint64_t windows = 0;
    for (int i = 0; i < readers; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK(all[i].in_order);
        CHECK(all[i].whole);
        windows += all[i].windows;
    }
    check_numbers(all, readers, before + beside);
    CHECK_U64(windows + atomic_load(&match.queue.merged), before + beside);
    for (int i = 0; i < readers; i++)
        free(all[i].seen);
    pthread_barrier_destroy(&match.start);
    smn_window_queue_release(&match.queue);
}

static void test_beside_a_writer(void)
{
    for (int readers = 1; readers <= MOST_READERS; readers++) {
        for (int waits = 0; waits < 2; waits++) {
            check_case("%d readers, waits: %d", readers, waits);
            run_contest(readers, 2, waits, 0, 10000);
            run_contest(readers, 4, waits, 4, 10000);
            run_contest(readers, 64, waits, 64, 10000);
            /* More room than windows: all is between the readers. */
            for (int round = 0; round < 3; round++)
                run_contest(readers, MOST_WINDOWS, waits, MOST_WINDOWS - 1, 1);
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
