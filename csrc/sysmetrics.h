/* The public C API of the sampler; see sysmetrics.cdef.h for the contract. */
#ifndef SYSMETRICS_H
#define SYSMETRICS_H

#include <stdint.h>

#include "sysmetrics.cdef.h"

#endif
