/* provider_report.h - the table provider_status as clients see it. Usage-writer only. */
#ifndef XROUTER_USAGE_PROVIDER_REPORT_H
#define XROUTER_USAGE_PROVIDER_REPORT_H

#include "common/buf.h"
#include "usage/ledger.h"

/* Appends {"object":"list","data":[{"provider","model","status","latency_ms","error_rate",
 * "updated_at"}]}: status as usage/provider_status.h says; error_rate is a fraction of 1; what is
 * not known is null. 0 or -errno as database_errno(). */
int provider_report_encode(struct ledger *ledger, struct buf *out);

#endif
