/* What bindgen reads: the public DPDK headers we call into, and our shim. */
#include <rte_config.h>
#include <rte_eal.h>
#include <rte_eal_memconfig.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_service_component.h>
#include <rte_version.h>
#include "shim.h"
