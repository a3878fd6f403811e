/* What the dpdk crate needs from DPDK, in one translation unit.
 *
 * bindgen reads this header; cc compiles the wrappers that bindgen writes for the static inline functions named in
 * build.rs. Field offsets of rte_mbuf are spelled here with offsetof, because the names of its anonymous unions are not
 * stable from one DPDK release to the next. */
#ifndef BATON_WRAPPER_H
#define BATON_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_version.h>
#include <rte_errno.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_epoll.h>
#include <rte_ethdev.h>
#include <rte_eth_bond.h>
#include <rte_eth_ring.h>
#include <rte_interrupts.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_ring.h>

enum baton_mbuf_layout {
	BATON_MBUF_SIZE = sizeof(struct rte_mbuf),
	BATON_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	BATON_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	BATON_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	BATON_MBUF_PORT = offsetof(struct rte_mbuf, port),
	BATON_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	BATON_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	BATON_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	BATON_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	BATON_MBUF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss),
	BATON_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
};

_Static_assert(sizeof(struct rte_mbuf) == 128, "rte_mbuf is two cache lines");
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_addr) == sizeof(void *), "buf_addr is a pointer");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_off) == 2, "data_off is 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->nb_segs) == 2, "nb_segs is 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->port) == 2, "port is 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->ol_flags) == 8, "ol_flags is 64 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->pkt_len) == 4, "pkt_len is 32 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_len) == 2, "data_len is 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->vlan_tci) == 2, "vlan_tci is 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->hash.rss) == 4, "hash.rss is 32 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_len) == 2, "buf_len is 16 bits");

/* The macros behind these are shifts of UINT64_C, which bindgen skips or gives mixed types. */
static const uint64_t BATON_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t BATON_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t BATON_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t BATON_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t BATON_MBUF_ATTACHED = RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
static const uint64_t BATON_RSS_TYPES = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint64_t BATON_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t BATON_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint32_t BATON_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;

static const int32_t BATON_EPOLL_PER_THREAD = RTE_EPOLL_PER_THREAD;
static const int32_t BATON_INTR_EVENT_ADD = RTE_INTR_EVENT_ADD;

/* rte_errno is a thread-local variable behind a macro, which bindgen cannot name. */
static inline int baton_errno(void)
{
	return rte_errno;
}

/* rte_eth_link is a bit-field struct in one release and a union in the next. */
static inline int baton_eth_link(uint16_t port, uint32_t *speed_mbps, uint8_t *full_duplex, uint8_t *up)
{
	struct rte_eth_link link;
	int status = rte_eth_link_get_nowait(port, &link);

	if (status != 0)
		return status;
	*speed_mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	*full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	*up = link.link_status == RTE_ETH_LINK_UP;
	return 0;
}

/* Has whoever is told of the link's state ask for it: what is cleared is the driver's promise of an interrupt when it changes. */
static inline int baton_eth_link_by_asking(uint16_t port)
{
	struct rte_eth_dev_info info;
	int status = rte_eth_dev_info_get(port, &info);

	/* It points to the flags of the device itself, in memory that is not constant. */
	if (status == 0 && info.dev_flags != NULL)
		*(uint32_t *)(uintptr_t)info.dev_flags &= ~RTE_ETH_DEV_INTR_LSC;
	return status;
}

/* DPDK 23.11 renamed it. */
static inline int baton_bond_active(uint16_t bond, uint16_t *members, uint16_t room)
{
#if RTE_VERSION < RTE_VERSION_NUM(23, 11, 0, 0)
	return rte_eth_bond_active_slaves_get(bond, members, room);
#else
	return rte_eth_bond_active_members_get(bond, members, room);
#endif
}

static inline void
baton_free_memzone(__rte_unused struct rte_mempool_memhdr *chunk, void *zone)
{
	rte_memzone_free(zone);
}

/* Gives a pool the memory of all its frame buffers, in one piece. */
static inline int
baton_populate(struct rte_mempool *pool, const char *name, int socket)
{
	char zone_name[RTE_MEMZONE_NAMESIZE];
	const struct rte_memzone *zone;
	size_t chunk, align;
	ssize_t size = rte_mempool_op_calc_mem_size_default(pool, pool->size, 0, &chunk, &align);
	int populated;

	if (size < 0)
		return size;
	snprintf(zone_name, sizeof(zone_name), RTE_MEMPOOL_MZ_FORMAT "_0", name);
	zone = rte_memzone_reserve_aligned(zone_name, size, socket, 0, align);
	if (zone == NULL)
		return -rte_errno;
	populated = rte_mempool_populate_iova(pool, zone->addr, zone->iova, zone->len, baton_free_memzone, (void *)(uintptr_t)zone);
	if (populated <= 0)
		rte_memzone_free(zone);
	if (populated == (int)pool->size)
		return 0;
	return populated < 0 ? populated : -ENOMEM;
}

/* As rte_pktmbuf_pool_create, but frame buffers may lie across pages. On small pages that would put each at the beginning of a page of its own,
 * so that all of them share a few sets of the caches. Devices lose nothing: where they address memory as we do (IOVA is VA), it is in one
 * piece for them, too, and elsewhere none uses small pages. */
static inline struct rte_mempool *
baton_pktmbuf_pool(const char *name, unsigned int n, unsigned int cache, uint16_t data_room, int socket)
{
	struct rte_pktmbuf_pool_private mbufs = {.mbuf_data_room_size = data_room};
	struct rte_mempool *pool;
	int error;

	if (rte_eal_has_hugepages())
		return rte_pktmbuf_pool_create(name, n, cache, 0, data_room, socket);
	pool = rte_mempool_create_empty(name, n, sizeof(struct rte_mbuf) + data_room, cache, sizeof(mbufs), socket,
					RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (pool == NULL)
		return NULL;
	error = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (error == 0) {
		rte_pktmbuf_pool_init(pool, &mbufs);
		error = baton_populate(pool, name, socket);
	}
	if (error != 0) {
		rte_mempool_free(pool);
		rte_errno = -error;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

#endif
