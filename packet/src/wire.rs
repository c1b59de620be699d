//! Big-endian fields of fixed windows: constant offsets leave no bounds check behind.

/// `L` bytes as one load: taken one by one and put together, the compiler does not always find the word again.
#[inline(always)]
pub(crate) fn bytes<const L: usize, const N: usize>(window: &[u8; N], at: usize) -> [u8; L] {
    window.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; L])
}

#[inline(always)]
pub(crate) const fn get16<const N: usize>(window: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([window[at], window[at + 1]])
}

#[inline(always)]
pub(crate) const fn get32<const N: usize>(window: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
}

#[inline(always)]
pub(crate) fn get64<const N: usize>(window: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(bytes(window, at))
}

#[inline(always)]
pub(crate) fn put64<const N: usize>(window: &mut [u8; N], at: usize, value: u64) {
    window[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[inline(always)]
pub(crate) fn put16<const N: usize>(window: &mut [u8; N], at: usize, value: u16) {
    [window[at], window[at + 1]] = value.to_be_bytes();
}

#[inline(always)]
pub(crate) fn put32<const N: usize>(window: &mut [u8; N], at: usize, value: u32) {
    [window[at], window[at + 1], window[at + 2], window[at + 3]] = value.to_be_bytes();
}

/// As it lies in memory: for sums, which come out in the order their words were read in (RFC 1071 §2B).
#[inline(always)]
pub(crate) const fn raw16<const N: usize>(window: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([window[at], window[at + 1]])
}

#[inline(always)]
pub(crate) const fn raw32<const N: usize>(window: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
}

#[inline(always)]
pub(crate) fn put_raw16<const N: usize>(window: &mut [u8; N], at: usize, value: u16) {
    [window[at], window[at + 1]] = value.to_ne_bytes();
}

/// Puts `value`, and returns what was there and what is now, both as they lie in memory.
#[inline(always)]
pub(crate) fn swap32<const N: usize>(window: &mut [u8; N], at: usize, value: u32) -> (u32, u32) {
    let old = raw32(window, at);
    put32(window, at, value);
    (old, value.to_be())
}
