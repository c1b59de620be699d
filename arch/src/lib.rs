//! The few CPU instructions that are unsafe to call, behind safe signatures: prefetch, keyed hash, tag compare.
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test data"))]

#[cfg(not(all(target_arch = "x86_64", target_feature = "aes", target_feature = "sse2")))]
compile_error!("build for x86-64 with AES instructions: see .cargo/config.toml");

use std::arch::x86_64 as cpu;
use std::sync::atomic::AtomicU16;

/// 256-bit key of [`keyed_hash`], from the kernel's random generator.
#[derive(Clone, Copy)]
pub struct HashKey {
    first: cpu::__m128i,
    second: cpu::__m128i,
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(not shown)")
    }
}

impl HashKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[at..at + 8]);
            i64::from_le_bytes(w)
        };
        // SAFETY: the build requires SSE2 (compile_error above); the programs check the CPU at start.
        unsafe {
            Self { first: cpu::_mm_set_epi64x(word(8), word(0)), second: cpu::_mm_set_epi64x(word(24), word(16)) }
        }
    }
}

/// Keyed hash of 128 bits: four AES rounds. Two rounds cluster on consecutive addresses; unkeyed or linear hashes (CRC,
/// Toeplitz) let a client choose its bucket.
#[inline(always)]
#[must_use]
pub fn keyed_hash(a: u64, b: u64, key: &HashKey) -> u64 {
    // SAFETY: the build requires AES and SSE2 (compile_error above); the programs check the CPU at start.
    unsafe {
        let x = cpu::_mm_xor_si128(cpu::_mm_set_epi64x(a.cast_signed(), b.cast_signed()), key.first);
        let x = cpu::_mm_aesenc_si128(x, key.second);
        let x = cpu::_mm_aesenc_si128(x, key.first);
        let x = cpu::_mm_aesenc_si128(x, key.second);
        let x = cpu::_mm_aesenc_si128(x, key.first);
        cpu::_mm_cvtsi128_si64(x).cast_unsigned()
    }
}

/// Places of `tags` that equal `tag`, as a bit mask.
#[inline(always)]
#[must_use]
pub fn match_tags(tags: &[AtomicU16; 10], tag: u16) -> u32 {
    let start = tags.as_ptr().cast::<u8>();
    // SAFETY: 16 + 4 bytes lie within the 20 of `tags`. The loads are plain, of memory that its one writer changes with
    // 2-byte stores: x86 never shows half of an aligned 2-byte store, and a stale tag is harmless, since every match is
    // verified against the session record.
    // The instructions are SSE2, which the build requires.
    unsafe {
        let low = cpu::_mm_loadu_si128(start.cast());
        let high = cpu::_mm_cvtsi32_si128(start.add(16).cast::<i32>().read_unaligned());
        let wanted = cpu::_mm_set1_epi16(tag.cast_signed());
        let equal = cpu::_mm_packs_epi16(cpu::_mm_cmpeq_epi16(low, wanted), cpu::_mm_cmpeq_epi16(high, wanted));
        cpu::_mm_movemask_epi8(equal).cast_unsigned() & 0x3ff
    }
}

/// Asks for the cache line of `value`.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    // SAFETY: prefetching any address is without effect on memory; this one is valid besides.
    unsafe { cpu::_mm_prefetch::<{ cpu::_MM_HINT_T0 }>(std::ptr::from_ref(value).cast()) };
}

/// Asks for the cache line of `rows[at]`; nothing happens beyond the end.
#[inline(always)]
pub fn prefetch_at<T>(rows: &[T], at: usize) {
    if let Some(row) = rows.get(at) {
        prefetch(row);
    }
}

/// What this build needs of the CPU and does not find; empty: all there.
#[must_use]
pub fn missing_cpu_features() -> Vec<&'static str> {
    let has = [
        ("aes", is_x86_feature_detected!("aes")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi1", is_x86_feature_detected!("bmi1")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("movbe", is_x86_feature_detected!("movbe")),
    ];
    has.into_iter().filter(|(_, found)| !found).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_where_a_plain_loop_finds_them() {
        let mut seed = 1_u32;
        for _ in 0..10_000 {
            let tags: [AtomicU16; 10] = std::array::from_fn(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                AtomicU16::new((seed >> 30) as u16)
            });
            for tag in 0..4 {
                let plain =
                    tags.iter().enumerate().filter(|(_, t)| t.load(std::sync::atomic::Ordering::Relaxed) == tag);
                assert_eq!(match_tags(&tags, tag), plain.map(|(i, _)| 1 << i).sum::<u32>());
            }
        }
    }

    #[test]
    fn one_bit_of_input_changes_half_of_the_output() {
        let key = HashKey::new(std::array::from_fn(|i| i as u8 * 7 + 1));
        let mut flips = 0;
        let mut cases = 0;
        for i in 0..1000_u64 {
            for bit in 0..64 {
                flips += (keyed_hash(i, 80, &key) ^ keyed_hash(i ^ 1 << bit, 80, &key)).count_ones();
                flips += (keyed_hash(i, 80, &key) ^ keyed_hash(i, 80 ^ 1 << bit, &key)).count_ones();
                cases += 2;
            }
        }
        let mean = f64::from(flips) / f64::from(cases);
        assert!((31.0..33.0).contains(&mean), "{mean}");
    }

    #[test]
    fn consecutive_tuples_spread_evenly() {
        let key = HashKey::new(std::array::from_fn(|i| i as u8 * 3 + 5));
        let buckets = 1024_usize;
        let mut counts = vec![0_u32; buckets];
        for address in 0..256_u64 {
            for port in 0..256_u64 {
                let hash =
                    keyed_hash((0x0a00_0000 + address) << 32 | (1024 + port) << 16 | 80, 0x0a4d_0064 << 8 | 6, &key);
                counts[((hash & 0xffff_ffff) as usize * buckets) >> 32] += 1;
            }
        }
        // Chi-square with 1,023 degrees of freedom: 1,168 is the 99.9 % point.
        let chi: f64 = counts.iter().map(|c| (f64::from(*c) - 64.0).powi(2) / 64.0).sum();
        assert!(chi < 1168.0, "{chi}");
    }
}
