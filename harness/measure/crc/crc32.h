/* SPDX-License-Identifier: GPL-2.0 */
/*
 * crc32_le() at the speed of hardware, for a UML kernel that is measured: it has no
 * architecture's, and with a table the checksum is most of what rxe does.
 * lib/crc/crc32-main.c takes this for the architecture's where bench.py says so. A
 * UML kernel is a user process, so it may use vector registers.
 *
 * Folding by carry-less multiplication, as in Intel's paper "Fast CRC Computation for
 * Generic Polynomials Using PCLMULQDQ Instruction", where the constants are from.
 */
typedef long long crc_v2 __attribute__((vector_size(16)));

#define CRC_CLMUL(a, b, which)	__builtin_ia32_pclmulqdq128(a, b, which)
#define CRC_FOLD(acc, k, next)	(CRC_CLMUL(acc, k, 0x00) ^ CRC_CLMUL(acc, k, 0x11) ^ (next))

__attribute__((target("sse4.1,pclmul")))
static u32 crc32_le_arch(u32 crc, const u8 *p, size_t len)
{
	const crc_v2 by_64 = { 0x154442bd4, 0x1c6e41596 };
	const crc_v2 by_16 = { 0x1751997d0, 0x0ccaa009e };
	crc_v2 acc[4], next;
	int i;

	if (len < 64)
		return crc32_le_base(crc, p, len);

	__builtin_memcpy(acc, p, 64);
	acc[0] ^= (crc_v2){ crc, 0 };
	for (p += 64, len -= 64; len >= 64; p += 64, len -= 64) {
		for (i = 0; i < 4; i++) {
			__builtin_memcpy(&next, p + 16 * i, 16);
			acc[i] = CRC_FOLD(acc[i], by_64, next);
		}
	}
	for (i = 1; i < 4; i++)
		acc[0] = CRC_FOLD(acc[0], by_16, acc[i]);
	for (; len >= 16; p += 16, len -= 16) {
		__builtin_memcpy(&next, p, 16);
		acc[0] = CRC_FOLD(acc[0], by_16, next);
	}
	crc = crc32_le_base(0, (const u8 *)acc, 16);
	return crc32_le_base(crc, p, len);
}

#define crc32_be_arch	crc32_be_base
#define crc32c_arch	crc32c_base

static u32 crc32_optimizations_arch(void)
{
	return CRC32_LE_OPTIMIZATION;
}
