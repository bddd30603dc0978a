#include "process_cpu.h"

#include <time.h>

/* The kernel rounds both parts of waited_ticks down: so much less may an increase be. */
static const uint64_t ROUNDED_TICKS = 2;

static uint64_t increase(uint64_t before, uint64_t now)
{
    return now > before ? now - before : 0;
}

static uint64_t all_ticks(const smn_process *process)
{
    return process->now.own_ticks + process->now.waited_ticks;
}

static uint64_t waited(const smn_process *process)
{
    return increase(process->waited_before, process->now.waited_ticks);
}

/* Of what it waited for, what nobody has seen before. */
static uint64_t unseen(const smn_process *process)
{
    return increase(process->owed, waited(process));
}

/* Of what it owes, what it has not waited for. */
static uint64_t unpaid(const smn_process *process)
{
    return increase(waited(process), process->owed);
}

/* Whether it is known who waits for it: the parent that it had when it was read is there. */
static bool has_parent(const smn_process *process, const smn_process *ancestor)
{
    return ancestor->now.pid == process->now.parent && !ancestor->has_left && !process->is_orphan;
}

/*
 * What was seen of one that has ended is in its parent's waited_ticks, or will
 * soon be. If that has ended, too, any ancestor may have waited for it: those pay
 * that have something to pay with.
 */
static void owe(smn_process_tree *tree, const smn_process *process, uint64_t ticks)
{
    smn_process *nearest = smn_process_tree_ancestor(tree, process);
    if (nearest == NULL)
        return;
    smn_process *holder = has_parent(process, nearest) ? NULL : nearest;
    for (int i = 0; i < SMN_MOST_GENERATIONS && holder != NULL && ticks > 0; i++) {
        uint64_t share = unseen(holder) < ticks ? unseen(holder) : ticks;
        holder->owed += share;
        ticks -= share;
        holder = smn_process_tree_ancestor(tree, holder);
    }
    nearest->owed += ticks;
}

/* The same of all that have ended; first those of which it is known who waited for them. */
static void take_ended(smn_process_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        process->owed = process->debt;
        process->was_checked = process->has_left = false;
    }
    for (int is_known = 1; is_known >= 0; is_known--) {
        for (size_t i = 0; i < tree->count; i++) {
            const smn_process *process = &tree->processes[i];
            const smn_process *ancestor = NULL;
            if (!process->is_there)
                ancestor = smn_process_tree_ancestor(tree, process);
            if (ancestor != NULL && has_parent(process, ancestor) == is_known)
                owe(tree, process, all_ticks(process) + process->debt);
        }
    }
}

/* Whether its ticks may be among those that an ancestor has waited for. */
static bool may_have_left(smn_process_tree *tree, const smn_process *process)
{
    const smn_process *holder = smn_process_tree_ancestor(tree, process);
    bool is_known = holder != NULL && has_parent(process, holder);
    for (int i = 0; i < SMN_MOST_GENERATIONS && holder != NULL; i++) {
        if (unseen(holder) > 0 && unseen(holder) + ROUNDED_TICKS >= all_ticks(process))
            return true;
        if (is_known)
            return false;
        holder = smn_process_tree_ancestor(tree, holder);
    }
    return false;
}

/*
 * One that is read, then ends and is waited for, and only then its parent is
 * read, would be counted twice. The kernel adds to waited_ticks first and takes
 * the process away afterwards: so it is looked for once more if its parent has
 * waited for something that nobody has seen.
 */
static bool take_leaving(smn_process_tree *tree)
{
    bool has_any = false;
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        if (!process->is_there || process->was_checked || !may_have_left(tree, process))
            continue;
        process->was_checked = true;
        process->has_left = !smn_process_tree_is_there(tree, process);
        if (process->has_left)
            owe(tree, process, all_ticks(process));
        has_any = has_any || process->has_left;
    }
    return has_any;
}

static bool has_unseen(const smn_process_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        if (tree->processes[i].is_there && unseen(&tree->processes[i]) > 0)
            return true;
    }
    return false;
}

/*
 * A debt lasts for one more reading, because a member may be read before its
 * child and wait for it in between. Whoever has not paid by then never will.
 */
static void keep_debt(smn_process *process)
{
    uint64_t recent = process->owed - process->debt;
    uint64_t left = unpaid(process);
    process->debt = left < recent ? left : recent;
}

/* Ticks since boot, of the clock that processes are dated with: it runs on in suspend. */
static uint64_t boot_ticks(uint64_t ticks_per_second)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * ticks_per_second +
           (uint64_t)now.tv_nsec * ticks_per_second / 1000000000;
}

void smn_process_cpu_init(smn_process_cpu *cpu, uint64_t ticks_per_second)
{
    *cpu = (smn_process_cpu){.ticks_per_second = ticks_per_second};
}

void smn_process_cpu_settle(smn_process_cpu *cpu, smn_process_tree *tree)
{
    if (!cpu->has_begun)
        cpu->begin_ticks = boot_ticks(cpu->ticks_per_second);
    cpu->has_begun = true;
    take_ended(tree);
    while (has_unseen(tree) && take_leaving(tree)) {
    }
    /* Children are mostly behind their parents: what one leaves unpaid its parent owes. */
    for (size_t i = tree->count; i-- > 0;) {
        const smn_process *process = &tree->processes[i];
        if (process->has_left)
            owe(tree, process, unpaid(process));
    }
    for (size_t i = 0; i < tree->count; i++) {
        smn_process *process = &tree->processes[i];
        cpu->ticks += increase(process->own_before, process->now.own_ticks);
        if (!tree->is_alone)
            cpu->ticks += unseen(process);
        keep_debt(process);
    }
}

void smn_process_cpu_welcome(smn_process_cpu *cpu, const smn_process_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        const smn_process *process = &tree->processes[i];
        if (process->is_new && process->now.start_ticks >= cpu->begin_ticks)
            cpu->ticks += all_ticks(process);
    }
}
