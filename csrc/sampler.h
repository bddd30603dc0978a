/* What the sampler offers beyond the public API, for tests. */
#ifndef SMN_SAMPLER_H
#define SMN_SAMPLER_H

#include "clock.h"
#include "sysmetrics.h"

/* smn_sampler_create with a clock of one's own; it must outlive the sampler. */
int smn_sampler_create_with_clock(const smn_options *options, const smn_clock *clock,
                                  smn_sampler **sampler, char *error);

#endif
