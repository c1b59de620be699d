//! Several fields of a shared row in one load; one of two small ones as a word.

/// The 8 bytes at `AT` of a row, little-endian: what relaxed loads of the fields that lie in them would give, for a row
/// that another process may be writing. On CPUs other than x86 a field may come torn: there only its one writer is safe
/// from that.
#[inline(always)]
#[must_use]
pub fn load64<const AT: usize, T>(row: &T) -> u64 {
    const { assert!(AT + 8 <= size_of::<T>(), "the word lies in the row") };
    #[cfg(target_arch = "x86_64")]
    {
        let word: u64;
        // SAFETY: reads 8 bytes of `row` (asserted above) and nothing else. Assembly, because the memory is shared: x86
        // never tears an aligned field inside a load that stays in one cache line, so each field is some value that was
        // stored (the compiler would not join atomic loads).
        unsafe {
            std::arch::asm!("mov {word}, qword ptr [{row} + {at}]",
                row = in(reg) std::ptr::from_ref(row), at = const AT, word = lateout(reg) word,
                options(nostack, readonly, pure, preserves_flags));
        }
        word
    }
    #[cfg(not(target_arch = "x86_64"))]
    u64::from_le_bytes(bytes::<AT, 8, T>(row))
}

/// [`load64`], 4 bytes.
#[inline(always)]
#[must_use]
pub fn load32<const AT: usize, T>(row: &T) -> u32 {
    const { assert!(AT + 4 <= size_of::<T>(), "the word lies in the row") };
    #[cfg(target_arch = "x86_64")]
    {
        let word: u32;
        // SAFETY: as in `load64`, 4 bytes.
        unsafe {
            std::arch::asm!("mov {word:e}, dword ptr [{row} + {at}]",
                row = in(reg) std::ptr::from_ref(row), at = const AT, word = lateout(reg) word,
                options(nostack, readonly, pure, preserves_flags));
        }
        word
    }
    #[cfg(not(target_arch = "x86_64"))]
    u32::from_le_bytes(bytes::<AT, 4, T>(row))
}

/// Field `which & 1` of two bytes at `AT` of a row, as by a relaxed load.
#[inline(always)]
#[must_use]
pub fn load8_of_two<const AT: usize, T>(row: &T, which: usize) -> u64 {
    const { assert!(AT + 2 <= size_of::<T>(), "the bytes lie in the row") };
    #[cfg(target_arch = "x86_64")]
    {
        let word: u64;
        // SAFETY: reads one byte of `row` (asserted above) and nothing else. Assembly, because the memory is shared, and in
        // one instruction what the compiler makes two of.
        unsafe {
            std::arch::asm!("movzx {word:e}, byte ptr [{row} + {which} + {at}]",
                row = in(reg) std::ptr::from_ref(row), which = in(reg) which & 1, at = const AT,
                word = lateout(reg) word, options(nostack, readonly, pure, preserves_flags));
        }
        word
    }
    #[cfg(not(target_arch = "x86_64"))]
    u64::from(bytes::<AT, 2, T>(row)[which & 1])
}

/// [`load8_of_two`], two fields of 2 bytes each.
#[inline(always)]
#[must_use]
pub fn load16_of_two<const AT: usize, T>(row: &T, which: usize) -> u64 {
    const { assert!(AT + 4 <= size_of::<T>() && AT.is_multiple_of(2), "the bytes lie in the row") };
    #[cfg(target_arch = "x86_64")]
    {
        let word: u64;
        // SAFETY: as in `load8_of_two`, 2 bytes.
        unsafe {
            std::arch::asm!("movzx {word:e}, word ptr [{row} + 2 * {which} + {at}]",
                row = in(reg) std::ptr::from_ref(row), which = in(reg) which & 1, at = const AT,
                word = lateout(reg) word, options(nostack, readonly, pure, preserves_flags));
        }
        word
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let [a, b, c, d] = bytes::<AT, 4, T>(row);
        u64::from(if which & 1 == 0 { u16::from_le_bytes([a, b]) } else { u16::from_le_bytes([c, d]) })
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
pub(crate) fn bytes<const AT: usize, const N: usize, T>(row: &T) -> [u8; N] {
    let start = std::ptr::from_ref(row).cast::<u8>();
    // SAFETY: inside `row` (the callers assert it); volatile, so each byte is read once.
    std::array::from_fn(|i| unsafe { start.add(AT + i).read_volatile() })
}
