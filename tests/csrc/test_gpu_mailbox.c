/* What is put is taken once, whole, and by the thread that takes it alone. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "gpu/mailbox.h"

enum {
    COUNT = 5,
    SETS = 200000
};

static void test_each_set_is_taken_once(void)
{
    smn_gpu_mailbox mailbox;
    double taken[SMN_GPU_MAILBOX_VALUES];
    smn_gpu_mailbox_init(&mailbox, 2);
    CHECK(!smn_gpu_mailbox_take(&mailbox, taken));
    for (int i = 0; i < 7; i++) {
        smn_gpu_mailbox_put(&mailbox, (double[]){i, 10.0 * i});
        CHECK(smn_gpu_mailbox_take(&mailbox, taken));
        CHECK_DOUBLE(taken[0], i);
        CHECK_DOUBLE(taken[1], 10.0 * i);
        CHECK(!smn_gpu_mailbox_take(&mailbox, taken));
    }
}

static void test_what_was_not_taken_waits_on(void)
{
    smn_gpu_mailbox mailbox;
    double taken[SMN_GPU_MAILBOX_VALUES];
    smn_gpu_mailbox_init(&mailbox, 3);
    smn_gpu_mailbox_put(&mailbox, (double[]){1.0, 2.0, NAN});
    smn_gpu_mailbox_put(&mailbox, (double[]){NAN, 3.0, NAN});
    smn_gpu_mailbox_put(&mailbox, (double[]){NAN, 4.0, NAN});
    CHECK(smn_gpu_mailbox_take(&mailbox, taken));
    CHECK_DOUBLE(taken[0], 1.0); /* of a call that is made less often */
    CHECK_DOUBLE(taken[1], 4.0);
    CHECK_ABSENT(taken[2]);
    smn_gpu_mailbox_put(&mailbox, (double[]){NAN, 5.0, NAN});
    CHECK(smn_gpu_mailbox_take(&mailbox, taken));
    CHECK_ABSENT(taken[0]); /* but it comes once */
}

static void *put_sets(void *opaque)
{
    smn_gpu_mailbox *mailbox = opaque;
    for (int i = 1; i <= SETS; i++)
        smn_gpu_mailbox_put(mailbox, (double[COUNT]){i, i, i, i, i});
    return NULL;
}

static void test_two_threads(void)
{
    smn_gpu_mailbox mailbox;
    pthread_t writer;
    double taken[SMN_GPU_MAILBOX_VALUES];
    double last = 0.0;
    bool sound = true;
    smn_gpu_mailbox_init(&mailbox, COUNT);
    REQUIRE(pthread_create(&writer, NULL, put_sets, &mailbox) == 0);
    while (last < SETS && sound) {
        if (!smn_gpu_mailbox_take(&mailbox, taken))
            continue;
        for (int i = 1; i < COUNT; i++)
            sound &= taken[i] == taken[0]; /* no set is mixed from two */
        sound &= taken[0] > last;          /* none comes twice, none late */
        last = taken[0];
    }
    pthread_join(writer, NULL);
    CHECK(sound);
    CHECK_DOUBLE(last, SETS);
}

/* Where the writer fills gaps from a set that is taken at that very moment. */
static void *put_halves(void *opaque)
{
    smn_gpu_mailbox *mailbox = opaque;
    for (int i = 1; i <= SETS; i++) {
        smn_gpu_mailbox_put(mailbox, (double[]){i, NAN});
        smn_gpu_mailbox_put(mailbox, (double[]){NAN, i});
    }
    return NULL;
}

static void test_no_half_comes_twice(void)
{
    smn_gpu_mailbox mailbox;
    pthread_t writer;
    double taken[SMN_GPU_MAILBOX_VALUES];
    double last[2] = {0.0, 0.0};
    bool sound = true;
    smn_gpu_mailbox_init(&mailbox, 2);
    REQUIRE(pthread_create(&writer, NULL, put_halves, &mailbox) == 0);
    while (last[1] < SETS && sound) {
        if (!smn_gpu_mailbox_take(&mailbox, taken))
            continue;
        for (int i = 0; i < 2; i++) {
            if (isnan(taken[i]))
                continue;
            sound &= taken[i] > last[i];
            last[i] = taken[i];
        }
    }
    pthread_join(writer, NULL);
    CHECK(sound);
    CHECK_DOUBLE(last[0], SETS);
}

int main(void)
{
    test_each_set_is_taken_once();
    test_what_was_not_taken_waits_on();
    test_two_threads();
    test_no_half_comes_twice();
    return check_report();
}
