//! The datagram: who sent it, which one it is, when.

/// Bytes of the content; the rest of a larger datagram is a pattern made of the number.
pub const CONTENT: usize = 28;
/// "LBns".
const MAGIC: [u8; 4] = *b"LBns";

/// What a datagram says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// Process and stream, so that a late datagram of an earlier burst is not ours.
    pub stream: u32,
    /// Flow.
    pub lane: u32,
    /// Number within the flow, from 0.
    pub number: u64,
    /// When it was sent, microseconds.
    pub sent_us: u64,
}

impl Numbered {
    /// Fills `bytes`, at least [`CONTENT`] of them.
    pub fn write(&self, bytes: &mut [u8]) {
        let (head, rest) = bytes.split_at_mut(CONTENT);
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.stream.to_be_bytes());
        head[8..12].copy_from_slice(&self.lane.to_be_bytes());
        head[12..20].copy_from_slice(&self.number.to_be_bytes());
        head[20..28].copy_from_slice(&self.sent_us.to_be_bytes());
        for (at, byte) in rest.iter_mut().enumerate() {
            *byte = filler(self.number, at);
        }
    }

    /// Reads `bytes`; `None` if one bit is not as it was written.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (magic, after) = bytes.split_first_chunk::<4>()?;
        let (stream, after) = after.split_first_chunk::<4>()?;
        let (lane, after) = after.split_first_chunk::<4>()?;
        let (number, after) = after.split_first_chunk::<8>()?;
        let (sent, rest) = after.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        let whole = *magic == MAGIC && rest.iter().enumerate().all(|(at, byte)| *byte == filler(number, at));
        whole.then(|| Self {
            stream: u32::from_be_bytes(*stream),
            lane: u32::from_be_bytes(*lane),
            number,
            sent_us: u64::from_be_bytes(*sent),
        })
    }
}

fn filler(number: u64, at: usize) -> u8 {
    number.to_le_bytes()[at % 8] ^ at.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_as_written_and_no_changed_one_is() {
        let said = Numbered { stream: 9, lane: 3, number: 77_000, sent_us: 5 };
        let mut bytes = [0; 64];
        said.write(&mut bytes);
        assert_eq!(Numbered::read(&bytes), Some(said));
        for at in (0..4).chain(CONTENT..64) {
            let mut wrong = bytes;
            wrong[at] ^= 0x10;
            assert_eq!(Numbered::read(&wrong), None, "byte {at}");
        }
        assert_eq!(Numbered::read(&bytes[..CONTENT - 1]), None);
    }
}
