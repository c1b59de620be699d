//! Sixteen bytes in one register: bytes brought into another order, words compared.

#[cfg(all(target_arch = "x86_64", target_feature = "avx"))]
use core::arch::x86_64::{
    __m128i, _mm_blendv_epi8, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_cvtsi128_si64, _mm_extract_epi32, _mm_load_si128,
    _mm_loadu_si128, _mm_movemask_ps, _mm_set_epi64x, _mm_set1_epi32, _mm_shuffle_epi8,
};

/// Sixteen bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes16(
    #[cfg(all(target_arch = "x86_64", target_feature = "avx"))] __m128i,
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx")))] [u8; 16],
);

/// Which byte comes where: byte *i* of what comes out is byte `order[i]` of what goes in; [`Order::ZERO`] gives a zero.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Order(pub [u8; 16]);

impl Order {
    /// No byte: a zero.
    pub const ZERO: u8 = 0x80;
}

// What follows is SSE up to 4.1, which the build has where it has AVX (`cpu_check` saw it on this CPU).
#[cfg(all(target_arch = "x86_64", target_feature = "avx"))]
impl Bytes16 {
    /// Bytes as they lie.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: &[u8; 16]) -> Self {
        // SAFETY: reads the array.
        Self(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }

    /// The 16 bytes at `AT` of a row that another process may be writing: what relaxed loads of its fields would give.
    #[inline(always)]
    #[must_use]
    pub fn of_row<const AT: usize, T>(row: &T) -> Self {
        const { assert!(AT + 16 <= size_of::<T>() && align_of::<T>() == 64, "the bytes lie in the row, a line of its own") };
        let bytes: __m128i;
        // SAFETY: reads 16 bytes of `row` (asserted above). Assembly, because the memory is shared: see `load64`; x86 does
        // not tear an aligned field of up to 8 bytes inside a load that stays in one cache line.
        unsafe {
            std::arch::asm!("vmovdqu {bytes}, xmmword ptr [{row} + {at}]",
                row = in(reg) std::ptr::from_ref(row), at = const AT, bytes = lateout(xmm_reg) bytes,
                options(nostack, readonly, pure, preserves_flags));
        }
        Self(bytes)
    }

    /// Two words, the first in the lower half.
    #[inline(always)]
    #[must_use]
    pub fn of_words(low: u64, high: u64) -> Self {
        // SAFETY: no memory.
        Self(unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) })
    }

    /// The bytes in another order.
    #[inline(always)]
    #[must_use]
    pub fn ordered(self, order: &Order) -> Self {
        // SAFETY: an order is 16 bytes, aligned to 16.
        Self(unsafe { _mm_shuffle_epi8(self.0, _mm_load_si128(order.0.as_ptr().cast())) })
    }

    /// Which of the four 32-bit words are the same: bit *i* for word *i*.
    #[inline(always)]
    #[must_use]
    pub fn same_words(self, other: Self) -> u32 {
        // SAFETY: no memory.
        unsafe { _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(self.0, other.0))) }.cast_unsigned()
    }

    /// `self` when `which` is 0, `other` when it is 1. Without a branch.
    #[inline(always)]
    #[must_use]
    pub fn or(self, other: Self, which: u32) -> Self {
        // SAFETY: no memory.
        unsafe { Self(_mm_blendv_epi8(self.0, other.0, _mm_set1_epi32(which.wrapping_neg().cast_signed()))) }
    }

    /// The first 8 bytes, the first lowest.
    #[inline(always)]
    #[must_use]
    pub fn first64(self) -> u64 {
        // SAFETY: no memory.
        unsafe { _mm_cvtsi128_si64(self.0) }.cast_unsigned()
    }

    /// The 4 bytes after them.
    #[inline(always)]
    #[must_use]
    pub fn third32(self) -> u32 {
        // SAFETY: no memory.
        unsafe { _mm_extract_epi32::<2>(self.0) }.cast_unsigned()
    }

    #[inline(always)]
    pub(crate) const fn register(self) -> __m128i {
        self.0
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx")))]
#[allow(missing_docs, clippy::missing_docs_in_private_items, reason = "as above")]
impl Bytes16 {
    pub fn of(bytes: &[u8; 16]) -> Self {
        Self(*bytes)
    }
    pub fn of_row<const AT: usize, T>(row: &T) -> Self {
        const { assert!(AT + 16 <= size_of::<T>(), "the bytes lie in the row") };
        Self(crate::load::bytes::<AT, 16, T>(row))
    }
    pub fn of_words(low: u64, high: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }
    pub fn ordered(self, order: &Order) -> Self {
        Self(order.0.map(|from| if from & Order::ZERO == 0 { self.0[usize::from(from & 15)] } else { 0 }))
    }
    pub fn same_words(self, other: Self) -> u32 {
        let same = |word: &usize| self.0[4 * word..][..4] == other.0[4 * word..][..4];
        (0..4).filter(same).fold(0, |mask, word| mask | 1 << word)
    }
    pub fn or(self, other: Self, which: u32) -> Self {
        if which == 0 { self } else { other }
    }
    pub fn first64(self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[i]))
    }
    pub fn third32(self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|i| self.0[8 + i]))
    }
}
