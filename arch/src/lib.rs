//! The few CPU instructions that are unsafe to call, behind safe signatures: prefetch, keyed hash, tag compare, time stamp.
//!
//! Every function has a plain-Rust equivalent for other CPUs and build flags, and the tests hold the two together.
#![deny(missing_docs)]

mod hash;
mod load;
mod vector;

use std::sync::atomic::{AtomicU16, AtomicU64};

pub use hash::{HashKey, keyed_hash, keyed_hash16, siphash13};
pub use load::{load8_of_two, load16_of_two, load32, load64};
pub use vector::{Bytes16, Bytes32, Order, Orders, Twelve};

/// Tags in one bucket of the session index.
pub const TAGS: usize = 10;

/// CPU features the programs are built for, beyond what every x86-64 has.
#[cfg(target_arch = "x86_64")]
macro_rules! features {
    ($($name:tt)*) => { [$(($name, std::is_x86_feature_detected!($name))),*] };
}

/// Does this CPU have what the programs are built for? To be called first thing in `main`.
///
/// # Errors
/// Names the missing features and what to do about it.
pub fn cpu_check() -> Result<(), String> {
    #[cfg(target_arch = "x86_64")]
    let features = features!("sse4.2" "avx" "avx2" "bmi1" "bmi2" "lzcnt" "popcnt" "movbe" "fma" "f16c" "aes");
    #[cfg(not(target_arch = "x86_64"))]
    let features: [(&str, bool); 0] = [];
    let missing: Vec<&str> = features.iter().filter(|(_, present)| !present).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this CPU lacks {}; the programs are built for x86-64-v3 with AES (Haswell, 2013, or later): \
         in a virtual machine choose the CPU model \"host\", else rebuild without .cargo/config.toml's rustflags",
        missing.join(", ")
    ))
}

/// Asks for the cache line of `target`, to be read soon.
#[inline(always)]
pub fn prefetch_read<T: ?Sized>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on no address; this one is valid anyway.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// Asks for the cache line of `target`, to be written soon. A hint only: nothing is written.
#[inline(always)]
pub fn prefetch_write<T: ?Sized>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing and faults on no address; this one is valid anyway.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// Asks for the cache line of `slice[index]`. Any index will do: nothing is read, and an address that is no element's is
/// not even looked at by more than a prefetch, which faults nowhere.
#[inline(always)]
pub fn prefetch_at<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on no address; it is calculated, not followed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().wrapping_add(index).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// Which of the tags equal `tag`: bit *i* for `tags[i]`.
#[inline(always)]
#[must_use]
pub fn match_tags(tags: &[u16; TAGS], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_mm_cvtsi32_si128, _mm_loadu_si128};
        let last = i32::from(tags[8].cast_signed()) & 0xffff | i32::from(tags[9].cast_signed()) << 16;
        // SAFETY: the 16 bytes read are the first eight of the ten tags; SSE2 is part of x86-64.
        let (low, high) = unsafe { (_mm_loadu_si128(tags.as_ptr().cast()), _mm_cvtsi32_si128(last)) };
        compare(low, high, tag)
    }
    #[cfg(not(target_arch = "x86_64"))]
    tags.iter().enumerate().fold(0, |mask, (i, &t)| mask | u32::from(t == tag) << i)
}

/// [`match_tags`] on tags that another process may be writing: each tag is read once, as by a relaxed load.
#[inline(always)]
#[must_use]
pub fn match_tags_shared(tags: &[AtomicU16; TAGS], tag: u16) -> u32 {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        use core::arch::{asm, x86_64::__m128i};
        let (low, high): (__m128i, __m128i);
        // SAFETY: reads exactly the 20 bytes of `tags`. The loads are assembly because the memory is shared: x86 never
        // tears an aligned 16-bit word inside them, so each tag is some value that was stored, like ten relaxed loads
        // (which the compiler would not join).
        unsafe {
            asm!("vmovdqu {low}, xmmword ptr [{tags}]", "vmovd {high}, dword ptr [{tags} + 16]",
                tags = in(reg) tags.as_ptr(), low = out(xmm_reg) low, high = lateout(xmm_reg) high,
                options(nostack, readonly, pure, preserves_flags));
        }
        compare(low, high, tag)
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    {
        use std::sync::atomic::Ordering::Relaxed; // A tag is only a hint: the record it leads to is compared in full.
        tags.iter().enumerate().fold(0, |mask, (i, t)| mask | u32::from(t.load(Relaxed) == tag) << i)
    }
}

/// Which of the [`TAGS`] words a row begins with equals `tag`: bits *2i* and *2i + 1* for word *i*. As [`match_tags_shared`],
/// in half the instructions, since it looks at 32 bytes of the row.
#[inline(always)]
#[must_use]
pub fn match_tags_of_row<T>(row: &T, tag: u16) -> u32 {
    const { assert!(size_of::<T>() >= 32 && align_of::<T>() == 64, "32 bytes lie in the row, a line of its own") };
    const ALL: u32 = (1 << (2 * TAGS)) - 1;
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        use core::arch::{
            asm,
            x86_64::{__m256i, _mm256_movemask_epi8, _mm256_set1_epi16},
        };
        let same: __m256i;
        // SAFETY: reads 32 bytes of `row` (asserted above). Assembly, because the memory is shared: see
        // `match_tags_shared`. The build has AVX2 (cfg) and `cpu_check` saw it on this CPU.
        let mask = unsafe {
            asm!("vpcmpeqw {same}, {tag}, ymmword ptr [{row}]",
                row = in(reg) std::ptr::from_ref(row), tag = in(ymm_reg) _mm256_set1_epi16(tag.cast_signed()),
                same = lateout(ymm_reg) same, options(nostack, readonly, pure, preserves_flags));
            _mm256_movemask_epi8(same)
        };
        mask.cast_unsigned() & ALL
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    {
        let bytes = load::bytes::<0, 32, T>(row);
        let same = |i: &usize| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]) == tag;
        (0..TAGS).filter(same).fold(0, |mask, i| mask | 3 << (2 * i)) & ALL
    }
}

/// Stores words, each as by a relaxed store, in any order. Of the longer slice the rest stays as it is.
#[inline(always)]
pub fn store_words(to: &[AtomicU64], from: &[u64]) {
    let words = to.len().min(from.len());
    let ((to, to_rest), (from, from_rest)) = (to[..words].as_chunks::<4>(), from[..words].as_chunks::<4>());
    for (to, from) in to.iter().zip(from) {
        #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
        // SAFETY: reads the 32 bytes of `from` and writes those of `to`. Assembly, because the memory is shared: x86 never
        // tears an aligned word inside such a store (the compiler would not join atomic ones).
        unsafe {
            std::arch::asm!("vmovdqu {block}, ymmword ptr [{from}]", "vmovdqu ymmword ptr [{to}], {block}",
                block = out(ymm_reg) _, from = in(reg) from.as_ptr(), to = in(reg) to.as_ptr(),
                options(nostack, preserves_flags));
        }
        #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
        store_each(to, from);
    }
    store_each(to_rest, from_rest);
}

#[inline(always)]
fn store_each(to: &[AtomicU64], from: &[u64]) {
    for (to, from) in to.iter().zip(from) {
        to.store(*from, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn compare(low: core::arch::x86_64::__m128i, high: core::arch::x86_64::__m128i, tag: u16) -> u32 {
    use core::arch::x86_64::{_mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16};
    // SAFETY: SSE2 is part of x86-64.
    let mask = unsafe {
        let tag = _mm_set1_epi16(tag.cast_signed());
        _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpeq_epi16(low, tag), _mm_cmpeq_epi16(high, tag)))
    };
    mask.cast_unsigned() & ((1 << TAGS) - 1)
}

/// Do 32 bytes differ from others in a bit of the mask?
#[inline(always)]
#[must_use]
pub fn differ(bytes: &[u8; 32], others: &[u8; 32], mask: &[u8; 32]) -> bool {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        use core::arch::x86_64::{_mm256_loadu_si256, _mm256_testz_si256, _mm256_xor_si256};
        // SAFETY: each load reads the 32 bytes of its array; the build has AVX2 (cfg) and `cpu_check` saw it on this CPU.
        unsafe {
            let load = |bytes: &[u8; 32]| _mm256_loadu_si256(bytes.as_ptr().cast());
            _mm256_testz_si256(_mm256_xor_si256(load(bytes), load(others)), load(mask)) == 0
        }
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    bytes.iter().zip(others).zip(mask).any(|((byte, other), mask)| (byte ^ other) & mask != 0)
}

/// The same value, of which the compiler does not know how it came about. Costs no instruction. Keeps it from taking sums
/// apart that are used twice, and from finding branches behind numbers made to avoid them.
#[inline(always)]
#[must_use]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut value = value;
        // SAFETY: no instruction at all.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
        value
    }
    #[cfg(not(target_arch = "x86_64"))]
    value
}

/// The CPU's time stamp counter: ticks of a constant rate, for measuring short stretches. 0 where there is none.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: reads a register; Linux leaves RDTSC open to user space.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}
