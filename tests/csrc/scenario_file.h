/* A scenario for the stand-ins of GPU driver libraries (tests/fakes/scenario.h). */
#ifndef SCENARIO_FILE_H
#define SCENARIO_FILE_H

/*
 * Makes it the scenario of every stand-in from here on, at one stroke; seconds
 * count from the first. `live` is said for all.
 */
void scenario_write(const char *text);

/* The last, before the end of the program. */
void scenario_remove(void);

#endif
