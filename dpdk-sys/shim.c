/* Wrappers of DPDK's static-inline functions; compiled with -O3 and DPDK's own flags. See shim.h. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/types.h>
#include <rte_errno.h>
#include <rte_log.h>
#include "shim.h"

#define SAME(type, field, bytes) \
	_Static_assert(sizeof(((type *)0)->field) == (bytes), #type "." #field " has another size than Rust reads")

/* Sizes Rust reads and writes with. */
SAME(struct rte_mbuf, buf_addr, 8);
SAME(struct rte_mbuf, data_off, 2);
SAME(struct rte_mbuf, refcnt, 2);
SAME(struct rte_mbuf, nb_segs, 2);
SAME(struct rte_mbuf, port, 2);
SAME(struct rte_mbuf, ol_flags, 8);
SAME(struct rte_mbuf, packet_type, 4);
SAME(struct rte_mbuf, pkt_len, 4);
SAME(struct rte_mbuf, data_len, 2);
SAME(struct rte_mbuf, vlan_tci, 2);
SAME(struct rte_mbuf, hash.rss, 4);
SAME(struct rte_mbuf, buf_len, 2);
SAME(struct rte_mbuf, next, 8);
SAME(struct rte_mbuf, tx_offload, 8);
SAME(struct rte_ring, mask, 4);
SAME(struct rte_ring, prod.head, 4);
SAME(struct rte_ring, prod.tail, 4);
SAME(struct rte_ring, cons.head, 4);
SAME(struct rte_ring, cons.tail, 4);
SAME(struct rte_mempool, pool_data, 8);
SAME(struct rte_mempool, size, 4);
SAME(struct rte_mempool, cache_size, 4);

/* What crash recovery knows about DPDK 22.11. Another layout must be studied before it is trusted. */
_Static_assert(sizeof(struct rte_mbuf) == 128, "rte_mbuf is not two cache lines");
_Static_assert(offsetof(struct rte_mbuf, data_off) == 16 && offsetof(struct rte_mbuf, next) == 64, "rte_mbuf moved");
_Static_assert(offsetof(struct rte_ring, prod.head) == 128 && offsetof(struct rte_ring, cons.head) == 256
	       && sizeof(struct rte_ring) == 384, "rte_ring moved");

const uint64_t lb_tx_cksum[3] = { RTE_ETH_TX_OFFLOAD_IPV4_CKSUM, RTE_ETH_TX_OFFLOAD_UDP_CKSUM, RTE_ETH_TX_OFFLOAD_TCP_CKSUM };
const uint64_t lb_rx_cksum[3] = { RTE_ETH_RX_OFFLOAD_IPV4_CKSUM, RTE_ETH_RX_OFFLOAD_UDP_CKSUM, RTE_ETH_RX_OFFLOAD_TCP_CKSUM };
const uint64_t lb_rss_ip_l4 = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

uint16_t lb_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, pkts, n);
}

uint16_t lb_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, pkts, n);
}

int lb_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **pkts, uint32_t n)
{
	return rte_pktmbuf_alloc_bulk(pool, pkts, n);
}

void lb_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}

int lb_pool_put(struct rte_mempool *pool, void *const *objs, uint32_t n)
{
	return rte_mempool_ops_enqueue_bulk(pool, objs, n);
}

const char *lb_pool_ops(struct rte_mempool *pool)
{
	return rte_mempool_get_ops(pool->ops_index)->name;
}

uint16_t lb_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

int lb_errno(void)
{
	return rte_errno;
}

int lb_link(uint16_t port, uint32_t *speed_mbps, int *full_duplex, int *up)
{
	struct rte_eth_link link = { 0 };
	int err = rte_eth_link_get_nowait(port, &link);

	if (err)
		return err;
	*speed_mbps = link.link_speed;
	*full_duplex = link.link_duplex;
	*up = link.link_status;
	return 0;
}

static void (*log_cb)(uint32_t, const char *, size_t);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_cb(level < 0 ? RTE_LOG_INFO : (uint32_t)level, text, len);
	return (ssize_t)len;
}

int lb_log_redirect(void (*cb)(uint32_t level, const char *text, size_t len))
{
	cookie_io_functions_t io = { .write = log_write };
	FILE *stream;

	log_cb = cb;
	stream = fopencookie(NULL, "w", io);
	return stream ? rte_openlog_stream(stream) : -1;
}
