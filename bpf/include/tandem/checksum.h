/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Incremental checksums (RFC 1624): a checksum becomes the one's complement sum of its own
 * complement, the complement of each old word and each new word. The sum is a plain 32-bit
 * integer, folded once at the end. A checksum that was wrong stays wrong.
 */
#ifndef TANDEM_CHECKSUM_H
#define TANDEM_CHECKSUM_H

#include <linux/types.h>

static __always_inline __u32 checksum_open(__be16 checksum)
{
	return (__u16)~checksum;
}

static __always_inline __u32 checksum_swap(__u32 sum, __u16 old, __u16 new)
{
	return sum + (__u16)~old + new;
}

static __always_inline __u32 checksum_swap_word(__u32 sum, __be32 old, __be32 new)
{
	return checksum_swap(checksum_swap(sum, old, new), old >> 16, new >> 16);
}

static __always_inline __u16 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline __be16 checksum_close(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

#endif
