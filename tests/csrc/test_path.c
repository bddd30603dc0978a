/* Paths put together without stdio. */
#include "check.h"
#include "path.h"

static void test_numbers(void)
{
    static const struct {
        uint64_t number;
        const char *text;
    } cases[] = {
        {0, "0"}, {7, "7"}, {10, "10"}, {4194304, "4194304"}, {UINT64_MAX, "18446744073709551615"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[SMN_PATH_NUMBER_BYTES];
        CHECK_TEXT(smn_path_number(text, cases[i].number), cases[i].text);
    }
}

static void test_joined(void)
{
    char path[8];
    CHECK(SMN_PATH_JOIN(path, sizeof path, "12", "/", "stat"));
    CHECK_TEXT(path, "12/stat");
    CHECK(!SMN_PATH_JOIN(path, sizeof path, "12", "/", "status"));
    CHECK_TEXT(path, "");
}

int main(void)
{
    test_numbers();
    test_joined();
    return check_report();
}
