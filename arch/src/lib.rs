//! The few CPU instructions that are unsafe to call, behind safe signatures: prefetch, keyed hash, tag compare, time stamp.
//!
//! Every function has a plain-Rust equivalent for other CPUs and build flags, and the tests hold the two together.
#![deny(missing_docs)]

mod hash;

use std::sync::atomic::AtomicU16;

pub use hash::{HashKey, keyed_hash, siphash13};

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

/// Asks for the cache line of `slice[index]`; does nothing when there is no such element.
#[inline(always)]
pub fn prefetch_at<T>(slice: &[T], index: usize) {
    if let Some(target) = slice.get(index) {
        prefetch_read(target);
    }
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
    #[cfg(all(target_arch = "x86_64", target_feature = "avx"))]
    {
        use core::arch::{asm, x86_64::__m128i, x86_64::_mm_cvtsi32_si128};
        let (low, last): (__m128i, i32);
        // SAFETY: reads exactly the 20 bytes of `tags`. The loads are assembly because the memory is shared: x86 never
        // tears an aligned 16-bit word inside them, so each tag is some value that was stored, like ten relaxed loads
        // (which the compiler would not join).
        unsafe {
            asm!("vmovdqu {low}, xmmword ptr [{tags}]", "mov {last:e}, dword ptr [{tags} + 16]",
                tags = in(reg) tags.as_ptr(), low = lateout(xmm_reg) low, last = lateout(reg) last,
                options(nostack, readonly, preserves_flags));
        }
        // SAFETY: SSE2 is part of x86-64.
        let high = unsafe { _mm_cvtsi32_si128(last) };
        compare(low, high, tag)
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx")))]
    {
        use std::sync::atomic::Ordering::Relaxed; // A tag is only a hint: the record it leads to is compared in full.
        tags.iter().enumerate().fold(0, |mask, (i, t)| mask | u32::from(t.load(Relaxed) == tag) << i)
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
