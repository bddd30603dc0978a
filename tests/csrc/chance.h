/* Pseudo-random numbers (splitmix64): the same ones in every run, from the same seed. */
#ifndef CHANCE_H
#define CHANCE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t state;
} chance_state;

static inline uint64_t chance_next(chance_state *chance)
{
    chance->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = chance->state;
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

/* 0 ≤ result < limit; limit > 0. */
static inline uint64_t chance_below(chance_state *chance, uint64_t limit)
{
    return chance_next(chance) % limit;
}

/*
 * Copies text to *mutated (room for twice its length and 16 bytes), then
 * damages it at a few places as a bad disk, a race or an attacker would.
 * Returns the new length.
 */
size_t chance_mutate(chance_state *chance, const char *text, size_t length, char *mutated);

#endif
