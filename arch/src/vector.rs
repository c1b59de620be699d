//! Sixteen bytes in one register: bytes brought into another order, words compared.

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
use core::arch::x86_64::{
    __m128i, __m256i, _mm_blendv_epi8, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_cvtsi128_si64, _mm_extract_epi32,
    _mm_load_si128, _mm_loadu_si128, _mm_movemask_ps, _mm_set_epi64x, _mm_set1_epi32, _mm_shuffle_epi8,
    _mm256_blend_epi32, _mm256_broadcastsi128_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_load_si256,
    _mm256_movemask_pd, _mm256_setzero_si256, _mm256_shuffle_epi8,
};

/// Sixteen bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes16(
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))] __m128i,
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))] [u8; 16],
);

/// Which byte comes where: byte *i* of what comes out is byte `order[i]` of what goes in; [`Order::ZERO`] gives a zero.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Order(pub [u8; 16]);

impl Order {
    /// No byte: a zero.
    pub const ZERO: u8 = 0x80;
}

/// Two orders of 12 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Twelve([u8; 28]);

impl Twelve {
    /// Of the first 12 bytes of each.
    #[must_use]
    pub const fn new(even: &Order, odd: &Order) -> Self {
        let (mut bytes, mut i) = ([0; 28], 0);
        while i < 12 {
            (bytes[i], bytes[12 + i]) = (even.0[i], odd.0[i]);
            i += 1;
        }
        Self(bytes)
    }
}

// What follows is SSE up to 4.1, which the build has where it has AVX (`cpu_check` saw it on this CPU).
#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
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

    /// As [`of_row`](Self::of_row), at 0 when `which` is even, at 12 when it is odd. Without a branch.
    #[inline(always)]
    #[must_use]
    pub fn of_row_twelfth<T>(row: &T, which: usize) -> Self {
        const { assert!(28 <= size_of::<T>() && align_of::<T>() == 64, "the bytes lie in the row, a line of its own") };
        let bytes: __m128i;
        // SAFETY: as in `of_row`; 4 * 3 bytes are 12.
        unsafe {
            std::arch::asm!("vmovdqu {bytes}, xmmword ptr [{row} + 4 * {words}]",
                row = in(reg) std::ptr::from_ref(row), words = in(reg) 3 * (which & 1), bytes = lateout(xmm_reg) bytes,
                options(nostack, readonly, pure, preserves_flags));
        }
        Self(bytes)
    }

    /// The first 12 bytes in one of two orders, the others anyhow. Without a branch.
    #[inline(always)]
    #[must_use]
    pub fn ordered_by(self, orders: &Twelve, which: usize) -> Self {
        // SAFETY: 16 bytes from byte 0 or 12 on, of 28.
        Self(unsafe {
            let order = orders.0.as_ptr().cast::<u32>().add(3 * (which & 1));
            _mm_shuffle_epi8(self.0, _mm_loadu_si128(order.cast()))
        })
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

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
#[allow(missing_docs, clippy::missing_docs_in_private_items, reason = "as above")]
impl Bytes16 {
    pub fn of(bytes: &[u8; 16]) -> Self {
        Self(*bytes)
    }
    pub fn of_row<const AT: usize, T>(row: &T) -> Self {
        const { assert!(AT + 16 <= size_of::<T>(), "the bytes lie in the row") };
        Self(crate::load::bytes::<AT, 16, T>(row))
    }
    pub fn of_row_twelfth<T>(row: &T, which: usize) -> Self {
        if which & 1 == 0 { Self::of_row::<0, T>(row) } else { Self::of_row::<12, T>(row) }
    }
    pub fn ordered_by(self, orders: &Twelve, which: usize) -> Self {
        let at = 12 * (which & 1);
        self.ordered(&Order(std::array::from_fn(|i| orders.0[at + i])))
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

/// Twice sixteen bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes32(
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))] __m256i,
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))] [Bytes16; 2],
);

/// Two orders, of both halves of [`Bytes32`].
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug)]
pub struct Orders(pub [Order; 2]);

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
impl Bytes32 {
    /// The same twice.
    #[inline(always)]
    #[must_use]
    pub fn twice(bytes: Bytes16) -> Self {
        // SAFETY: no memory; the build has AVX2 (cfg) and `cpu_check` saw it on this CPU. So it is below.
        Self(unsafe { _mm256_broadcastsi128_si256(bytes.0) })
    }

    /// The 12 bytes at `LOW` and those at `HIGH` of a row that another process may be writing, 4 zeros behind each: what
    /// relaxed loads of its fields would give.
    #[inline(always)]
    #[must_use]
    pub fn twelve_of_row<const LOW: usize, const HIGH: usize, T>(row: &T) -> Self {
        const {
            assert!(LOW + 16 <= size_of::<T>() && HIGH + 16 <= size_of::<T>(), "the bytes lie in the row");
            assert!(align_of::<T>() == 64, "a line of its own");
        };
        let bytes: __m256i;
        // SAFETY: reads twice 16 bytes of `row` (asserted above). Assembly, because the memory is shared: see
        // `Bytes16::of_row`.
        unsafe {
            std::arch::asm!("vmovdqu {bytes:x}, xmmword ptr [{row} + {low}]",
                "vinserti128 {bytes:y}, {bytes:y}, xmmword ptr [{row} + {high}], 1",
                row = in(reg) std::ptr::from_ref(row), low = const LOW, high = const HIGH,
                bytes = out(ymm_reg) bytes, options(nostack, readonly, pure, preserves_flags));
            Self(_mm256_blend_epi32::<0b1000_1000>(bytes, _mm256_setzero_si256()))
        }
    }

    /// The bytes in another order, each half by its own.
    #[inline(always)]
    #[must_use]
    pub fn ordered(self, orders: &Orders) -> Self {
        // SAFETY: orders are 32 bytes, aligned to 32.
        Self(unsafe { _mm256_shuffle_epi8(self.0, _mm256_load_si256(std::ptr::from_ref(orders).cast())) })
    }

    /// Which of the four 64-bit words are the same: bit *i* for word *i*.
    #[inline(always)]
    #[must_use]
    pub fn same_words(self, other: Self) -> u32 {
        // SAFETY: no memory.
        unsafe { _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(self.0, other.0))) }.cast_unsigned()
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
#[allow(missing_docs, clippy::missing_docs_in_private_items, reason = "as above")]
impl Bytes32 {
    pub fn twice(bytes: Bytes16) -> Self {
        Self([bytes; 2])
    }
    pub fn twelve_of_row<const LOW: usize, const HIGH: usize, T>(row: &T) -> Self {
        const TWELVE: Order =
            Order([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, Order::ZERO, Order::ZERO, Order::ZERO, Order::ZERO]);
        Self([Bytes16::of_row::<LOW, T>(row).ordered(&TWELVE), Bytes16::of_row::<HIGH, T>(row).ordered(&TWELVE)])
    }
    pub fn ordered(self, orders: &Orders) -> Self {
        Self(std::array::from_fn(|half| self.0[half].ordered(&orders.0[half])))
    }
    pub fn same_words(self, other: Self) -> u32 {
        let same = |half: usize| self.0[half].same_words(other.0[half]);
        let words = |same: u32| u32::from(same & 3 == 3) | u32::from(same & 12 == 12) << 1;
        words(same(0)) | words(same(1)) << 2
    }
}
