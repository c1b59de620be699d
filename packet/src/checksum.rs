//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).

/// Sum of the bytes as big-endian 16-bit words, unfolded; an odd last byte is padded with zero.
/// Congruent to the sum of 16-bit words modulo 0xffff; slices up to 2^32 bytes do not overflow.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|&word| u64::from(u32::from_be_bytes(word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum to 16 bits with end-around carry. 0 only for 0.
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the halves of a word")]
pub fn fold(sum: u64) -> u16 {
    let sum = arch::opaque(sum);
    // Both halves added to both halves: the upper one has taken up the carry of the lower.
    let half = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
}

/// Does a sum other than 0 fold to 0xffff, is it a multiple of it? By the inverse of 65,535 modulo 2^64: multiples of an odd
/// number, times its inverse, are the small numbers (Granlund and Montgomery, "Division by invariant integers", 1994, §9).
#[inline(always)]
#[must_use]
pub const fn sums_to_ones(sum: u64) -> bool {
    const INVERSE: u64 = 0x0001_0001_0001_0001_u64.wrapping_neg();
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// Checksum of the bytes, to be stored in a field that was zero while summing.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Sum of the IPv4 pseudo header of TCP and UDP (RFC 9293 §3.1, RFC 768). `len`: header and payload of layer 4, bytes.
#[inline(always)]
#[must_use]
pub const fn pseudo_v4(src: u32, dst: u32, proto: u8, len: u16) -> u64 {
    src as u64 + dst as u64 + proto as u64 + len as u64
}

/// Checksum of a TCP or UDP segment whose checksum field is zero. For UDP send [`udp_nonzero`] of it.
#[inline]
#[must_use]
pub fn segment_v4(src: u32, dst: u32, proto: u8, segment: &[u8]) -> u16 {
    !fold(pseudo(src, dst, proto, segment) + sum(segment))
}

/// Does the checksum in the segment match? (UDP's "none" is the caller's case, see [`crate::udp::verify`].)
#[inline]
#[must_use]
pub fn verify_segment_v4(src: u32, dst: u32, proto: u8, segment: &[u8]) -> bool {
    fold(pseudo(src, dst, proto, segment) + sum(segment)) == 0xffff
}

/// Longer than 65,535 is no IPv4 segment: the sum is then of no packet, and matches none.
#[inline(always)]
fn pseudo(src: u32, dst: u32, proto: u8, segment: &[u8]) -> u64 {
    pseudo_v4(src, dst, proto, 0) + segment.len() as u64
}

/// A UDP checksum that comes out as 0 is sent as 0xffff: 0 says "none" (RFC 768).
#[inline(always)]
#[must_use]
pub const fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// What a set of changed words does to a checksum: the sum of `new - old`, applied once.
///
/// Words must lie on even offsets of the summed range; [`Delta::bytes`] takes any. Holds 2^20 changes. Words and checksum
/// may all be given as they lie in memory instead of as numbers (but for `byte` and `bytes`): the sum does not mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(i64);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);
    /// Keeps the sum positive: a multiple of 0xffff, which is one's complement's other zero.
    const BIAS: i64 = 0xffff << 40;

    /// A 16-bit word changed.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + new as i64 - old as i64)
    }

    /// A 32-bit word changed (two 16-bit words at once: 2^16 ≡ 1).
    #[inline(always)]
    #[must_use]
    pub const fn long(self, old: u32, new: u32) -> Self {
        Self(self.0 + new as i64 - old as i64)
    }

    /// [`Delta::long`] of (old, new).
    #[inline(always)]
    #[must_use]
    pub(crate) const fn long_pair(self, (old, new): (u32, u32)) -> Self {
        self.long(old, new)
    }

    /// A byte changed at `offset` of the summed range.
    #[inline(always)]
    #[must_use]
    pub const fn byte(self, offset: usize, old: u8, new: u8) -> Self {
        let shift = if offset.is_multiple_of(2) { 8 } else { 0 };
        self.word((old as u16) << shift, (new as u16) << shift)
    }

    /// Bytes changed, the first at `offset` of the summed range. The longer slice's rest is ignored.
    #[inline]
    #[must_use]
    pub fn bytes(self, offset: usize, old: &[u8], new: &[u8]) -> Self {
        let pairs = old.iter().zip(new).enumerate();
        pairs.fold(self, |delta, (i, (&old, &new))| delta.byte(offset.wrapping_add(i), old, new))
    }

    /// Bytes that were not there before, the first on an even offset.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_wrap, reason = "a sum of a packet's bytes is below 2^63")]
    pub fn added(bytes: &[u8]) -> Self {
        Self(sum(bytes) as i64)
    }

    /// The same change undone.
    #[inline]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self(-self.0)
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The new checksum: `~(~old + new words - old words)`, RFC 1624's equation 3. A right one stays right, a wrong one
    /// stays wrong: corruption is never hidden.
    #[inline(always)]
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold((Self::BIAS + self.0 - checksum as i64).cast_unsigned())
    }

    /// [`Delta::apply`] for UDP: "none" (0) stays none, and a result of 0 is sent as 0xffff.
    #[inline(always)]
    #[must_use]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 { 0 } else { udp_nonzero(self.apply(checksum)) }
    }
}
