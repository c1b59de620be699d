//! Big-endian fields of fixed windows: constant offsets leave no bounds check behind.

#[inline(always)]
pub(crate) const fn get16<const N: usize>(window: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([window[at], window[at + 1]])
}

#[inline(always)]
pub(crate) const fn get32<const N: usize>(window: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
}

#[inline(always)]
pub(crate) fn put16<const N: usize>(window: &mut [u8; N], at: usize, value: u16) {
    [window[at], window[at + 1]] = value.to_be_bytes();
}

#[inline(always)]
pub(crate) fn put32<const N: usize>(window: &mut [u8; N], at: usize, value: u32) {
    [window[at], window[at + 1], window[at + 2], window[at + 3]] = value.to_be_bytes();
}
