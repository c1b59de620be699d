/* The C side of dpdk-sys.
 *
 * Two things bindgen cannot give: DPDK's static-inline functions (wrapped here, one call per burst,
 * never per packet), and where fields lie. The offsets are enum constants computed by the compiler from
 * the installed headers, so Rust reads mbufs, rings and pools without binding their (anonymous-union
 * ridden, version dependent) structs. */
#ifndef LB_SHIM_H
#define LB_SHIM_H
#include <stddef.h>
#include <stdint.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

/* struct rte_mbuf: byte offsets. */
enum {
	LB_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	LB_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	LB_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	LB_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	LB_MBUF_PORT = offsetof(struct rte_mbuf, port),
	LB_MBUF_PACKET_TYPE = offsetof(struct rte_mbuf, packet_type),
	LB_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	LB_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	LB_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	LB_MBUF_RSS = offsetof(struct rte_mbuf, hash.rss),
	LB_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	LB_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	LB_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	LB_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	LB_MBUF_SIZE = sizeof(struct rte_mbuf),
};

/* struct rte_ring: byte offsets; the table of 8-byte objects follows the struct. */
enum {
	LB_RING_MASK = offsetof(struct rte_ring, mask),
	LB_RING_PROD_HEAD = offsetof(struct rte_ring, prod.head),
	LB_RING_PROD_TAIL = offsetof(struct rte_ring, prod.tail),
	LB_RING_CONS_HEAD = offsetof(struct rte_ring, cons.head),
	LB_RING_CONS_TAIL = offsetof(struct rte_ring, cons.tail),
	LB_RING_TABLE = sizeof(struct rte_ring),
};

/* struct rte_mempool: byte offsets. */
enum {
	LB_POOL_RING = offsetof(struct rte_mempool, pool_data),
	LB_POOL_SIZE = offsetof(struct rte_mempool, size),
	LB_POOL_CACHE_SIZE = offsetof(struct rte_mempool, cache_size),
};

/* Limits. */
enum {
	LB_ETHER_ADDR_LEN = RTE_ETHER_ADDR_LEN,
	LB_MAX_LCORE = RTE_MAX_LCORE,
	LB_MAX_ETHPORTS = RTE_MAX_ETHPORTS,
	LB_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	LB_ETH_NAME_MAX_LEN = RTE_ETH_NAME_MAX_LEN,
	LB_MEMPOOL_NAMESIZE = RTE_MEMPOOL_NAMESIZE,
};
extern const uint64_t lb_tx_cksum[3]; /* device TX offload bits: IPv4, UDP, TCP */
extern const uint64_t lb_rx_cksum[3]; /* device RX offload bits: IPv4, UDP, TCP */
extern const uint64_t lb_rss_ip_l4;   /* RSS hash fields: IPv4/IPv6 with TCP and UDP ports */

/* Per burst. */
uint16_t lb_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
uint16_t lb_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
int lb_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **pkts, uint32_t n);
void lb_free(struct rte_mbuf *m);
/* Puts raw objects into the pool's ring. The caller has reset them. 0, or a negative errno. */
int lb_pool_put(struct rte_mempool *pool, void *const *objs, uint32_t n);

/* At start-up. */
/* Name of the pool's handler, for instance "ring_sp_sc"; static. */
const char *lb_pool_ops(struct rte_mempool *pool);
/* Bytes of an mbuf's buffer, headroom included. */
uint16_t lb_data_room(struct rte_mempool *pool);
int lb_errno(void);
/* 0 and the fields, or a negative errno. */
int lb_link(uint16_t port, uint32_t *speed_mbps, int *full_duplex, int *up);
/* Sends every rte_log line to cb (level 1 = emergency … 8 = debug) instead of stderr and syslog. 0 or -1. */
int lb_log_redirect(void (*cb)(uint32_t level, const char *text, size_t len));
#endif
