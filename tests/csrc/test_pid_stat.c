/* The scanner of /proc/<pid>/stat. */
#include <errno.h>
#include <stdio.h>

#include "chance.h"
#include "check.h"
#include "pid_stat.h"

static const char text[] =
    "4242 (pt_main_thread) S 4200 4242 4200 34816 -1 4194304 98 5 0 7 1207 88 310 21 20 -5 35 0 "
    "2356855 3133440 394 18446744073709551615 1 1 0 0 0 0 0 4096 17642 0 0 0 17 1 0 0 0 0 0\n";

static int scan(const char *bytes, smn_pid_stat *stat)
{
    *stat = (smn_pid_stat){0};
    return smn_scan_pid_stat(smn_scan_bytes(bytes, strlen(bytes)), stat);
}

static void test_fields(void)
{
    smn_pid_stat stat;
    CHECK_INT(scan(text, &stat), 0);
    CHECK_INT(stat.pid, 4242);
    CHECK_INT(stat.parent, 4200);
    CHECK_INT(stat.state, 'S');
    CHECK_U64(stat.own_ticks, 1295);
    CHECK_U64(stat.waited_ticks, 331);
    CHECK_U64(stat.threads, 35);
    CHECK_U64(stat.start_ticks, 2356855);
    CHECK_U64(stat.virtual_bytes, 3133440);
    CHECK_U64(stat.resident_pages, 394);
}

/* A process may call itself what it likes. */
static void test_names(void)
{
    static const char *const names[] = {
        "",
        " ",
        "(",
        ")",
        "()",
        "a b",
        "tmux: server (1)",
        ") Z 1 2 3",
        "4 (x) R 5",
        "))))",
        "\\n",
        "\xff\xfe",
        "kworker/u16:0-events_unbound",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char line[1024];
        smn_pid_stat stat;
        check_case("%s", names[i]);
        snprintf(line, sizeof line, "4242 (%s)%s", names[i], strchr(text, ')') + 1);
        CHECK_INT(scan(line, &stat), 0);
        CHECK_INT(stat.pid, 4242);
        CHECK_INT(stat.state, 'S');
        CHECK_INT(stat.parent, 4200);
        CHECK_U64(stat.own_ticks, 1295);
        CHECK_U64(stat.resident_pages, 394);
    }
    check_case(NULL);
}

static void test_refused(void)
{
    static const char *const bad[] = {
        "",
        "\n",
        "4242",
        "4242 ",
        "4242 (python)",
        "4242 (python) S",
        "4242 (python S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8\n",
        "4242 python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8\n",
        "-1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8\n",
        "2147483648 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8\n",
        "1 (python)S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8\n",
        "1 (python) S -1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 -1 2 3 4 20 0 1 0 5 6 7 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 x 3 4 20 0 1 0 5 6 7 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 35184372088833 20 0 1 0 5 6 7 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 2147483648 0 5 6 7 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 18446744073709551616 6 7 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6 18446744073709551615 8\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 5 6\n",
        "1 (python) S 1 1 1 0 -1 0 0 0 0 0 1 2\n3 4 20 0\n",
    };
    smn_pid_stat stat;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        CHECK_INT(scan(bad[i], &stat), -EBADMSG);
    }
    check_case(NULL);
}

/* Cut anywhere it is refused, until all that is read is there. */
static void test_cut_anywhere(void)
{
    const size_t whole = (size_t)(strstr(text, " 394 ") - text) + 5;
    for (size_t length = 0; length < sizeof text; length++) {
        smn_pid_stat stat = {0};
        check_case("%zu bytes", length);
        int error = smn_scan_pid_stat(smn_scan_bytes(text, length), &stat);
        CHECK_INT(error, length < whole ? -EBADMSG : 0);
    }
    check_case(NULL);
}

static void test_mutations(void)
{
    char mutated[2 * sizeof text + 16];
    chance_state chance = {20261124};
    for (int i = 0; i < 20000; i++) {
        smn_pid_stat stat = {0};
        check_case("mutation %d", i);
        size_t length = chance_mutate(&chance, text, sizeof text - 1, mutated);
        int error = smn_scan_pid_stat(smn_scan_bytes(mutated, length), &stat);
        CHECK(error == 0 || error == -EBADMSG);
        if (error == 0) {
            CHECK(stat.pid >= 0 && stat.parent >= 0);
            CHECK(stat.own_ticks <= 2 * SMN_MOST_TICKS && stat.waited_ticks <= 2 * SMN_MOST_TICKS);
            CHECK(stat.resident_pages <= SMN_MOST_PAGES && stat.threads <= INT_MAX);
        }
    }
    check_case(NULL);
}

int main(void)
{
    test_fields();
    test_names();
    test_refused();
    test_cut_anywhere();
    test_mutations();
    return check_report();
}
