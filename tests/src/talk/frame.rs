//! Frames: kind, 3 bytes of zero, big-endian length of the payload, big-endian number, payload made
//! of the number.

/// The other side echoes the frame.
pub const ECHO: u8 = b'E';
/// The other side waits as many ms as the number says, then sends [`SPEAK`].
pub const QUIET: u8 = b'Q';
/// The answer to [`QUIET`].
pub const SPEAK: u8 = b'S';
/// Bytes before the payload.
pub const HEAD: usize = 16;
/// Longest payload: a peer that says more is broken.
pub const LARGEST: usize = 65_536;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// [`ECHO`], [`QUIET`] or [`SPEAK`].
    pub kind: u8,
    /// Bytes of payload.
    pub payload: usize,
    /// Number, or milliseconds.
    pub number: u64,
}

impl Frame {
    /// Bytes on the wire.
    pub const fn length(&self) -> usize {
        HEAD + self.payload
    }

    /// Appends the frame to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let payload = u32::try_from(self.payload).unwrap_or(u32::MAX);
        out.extend([self.kind, 0, 0, 0]);
        out.extend(payload.to_be_bytes());
        out.extend(self.number.to_be_bytes());
        out.extend((0..self.payload).map(|at| filler(self.number, at)));
    }

    /// The frame that begins `bytes`; `None` while its head is not whole.
    ///
    /// # Errors
    /// What cannot be one.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, a, b, c, l0, l1, l2, l3, number @ ..] = *head;
        let payload = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let known = [ECHO, QUIET, SPEAK].contains(&kind) && [a, b, c] == [0; 3] && payload <= LARGEST;
        if !known {
            return Err(format!("no frame begins with {head:02x?}"));
        }
        Ok(Some(Self { kind, payload, number: u64::from_be_bytes(number) }))
    }

    /// Whether `bytes`, a whole frame, is this one to the last bit.
    pub fn is(&self, bytes: &[u8]) -> bool {
        let Ok(Some(read)) = Self::read(bytes) else { return false };
        read == *self
            && bytes.len() == self.length()
            && bytes[HEAD..].iter().enumerate().all(|(at, byte)| *byte == filler(self.number, at))
    }
}

fn filler(number: u64, at: usize) -> u8 {
    number.to_le_bytes()[at % 8].wrapping_add(at.to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_is_seen() {
        let frame = Frame { kind: ECHO, payload: 40, number: 0x0102_0304 };
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        assert!(frame.is(&bytes) && bytes.len() == frame.length());
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            assert!(!frame.is(&bytes), "byte {at}");
            bytes[at] ^= 4;
        }
        assert_eq!(Frame::read(&bytes[..HEAD - 1]), Ok(None));
        assert!(Frame::read(&[0; HEAD]).is_err());
    }
}
