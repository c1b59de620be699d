//! The keyed hash of the session index: nobody outside can choose tuples that collide.

use crate::vector::Bytes16;
#[cfg(not(all(target_arch = "x86_64", target_feature = "avx2", target_feature = "aes")))]
use crate::vector::Order;

/// 256 secret bits. Shape: 32 bytes; made once per boot, shared by all processes.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 32]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(not shown)")
    }
}

impl HashKey {
    /// A key of given bytes (those in the secrets segment, or fixed ones in tests).
    #[inline]
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes, to be stored 0600.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Hash of two words under a key.
///
/// Four AES rounds where the build has AES (two rounds put 43 % of consecutive addresses' keys into their second bucket,
/// four 5.9 %), else SipHash-1-3. All 64 bits are good. The value differs between the two kinds of build: it must not
/// outlive the tables, whose fingerprint covers it.
#[inline(always)]
#[must_use]
pub fn keyed_hash(a: u64, b: u64, key: &HashKey) -> u64 {
    keyed_hash16(Bytes16::of_words(b, a), key)
}

/// [`keyed_hash`] of `b` (the first 8 bytes, the first lowest) and `a` (the others).
#[inline(always)]
#[must_use]
pub fn keyed_hash16(words: Bytes16, key: &HashKey) -> u64 {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2", target_feature = "aes"))]
    {
        aes4(words, key)
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2", target_feature = "aes")))]
    {
        const LAST: Order = Order([8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 0, 0, 0, 0, 0]);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| key.0[at + i]));
        siphash13(words.ordered(&LAST).first64(), words.first64(), [word(0), word(8)])
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "avx2", target_feature = "aes"))]
#[inline(always)]
fn aes4(words: Bytes16, key: &HashKey) -> u64 {
    use core::arch::x86_64::{__m128i, _mm_aesenc_si128, _mm_cvtsi128_si64, _mm_load_si128, _mm_xor_si128};
    let halves: *const __m128i = key.0.as_ptr().cast();
    // SAFETY: the key is 32 bytes, aligned to 16; the build has AES (cfg above) and `cpu_check` saw it on this CPU.
    let mixed = unsafe {
        let (k, l) = (_mm_load_si128(halves), _mm_load_si128(halves.add(1)));
        let x = _mm_xor_si128(words.register(), k);
        let x = _mm_aesenc_si128(_mm_aesenc_si128(x, l), k);
        _mm_cvtsi128_si64(_mm_aesenc_si128(_mm_aesenc_si128(x, l), k))
    };
    mixed.cast_unsigned()
}

/// SipHash-1-3 of the 16 bytes `a`, `b` (little-endian). Source: Aumasson and Bernstein, "SipHash", 2012.
#[inline]
#[must_use]
pub fn siphash13(a: u64, b: u64, key: [u64; 2]) -> u64 {
    const LENGTH: u64 = 16 << 56; // The last block carries the length in its top byte.
    let [k0, k1] = key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for block in [a, b, LENGTH] {
        v[3] ^= block;
        sip_round(&mut v);
        v[0] ^= block;
    }
    v[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}
