//! ARP for IPv4 over Ethernet (RFC 826).

use crate::ethernet::{self, Mac};
use crate::wire::{get16, get32, put16, put32};

/// Bytes of the message.
pub const MESSAGE: usize = 28;

/// What is asked or said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Who says it.
    pub sender_mac: Mac,
    /// Its IPv4 address; 0 in a probe (RFC 5227).
    pub sender_ip: u32,
    /// To whom; zero in a request.
    pub target_mac: Mac,
    /// The address asked for, or that of the asker.
    pub target_ip: u32,
}

impl Arp {
    /// Tells everybody its own address without being asked (RFC 5227 §3).
    #[must_use]
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// Less than 28 bytes.
    #[error("ARP message below 28 bytes")]
    TooShort,
    /// Hardware is not Ethernet, protocol not IPv4, or their address lengths are wrong.
    #[error("ARP message is not for IPv4 over Ethernet")]
    BadKind,
    /// Neither request nor reply.
    #[error("ARP operation is neither request nor reply")]
    BadOperation,
    /// The sender's hardware address is zero or a group's.
    #[error("ARP sender's hardware address is zero or a group")]
    BadSender,
}

/// Hardware Ethernet, protocol IPv4, address lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Reads the message at the start of `payload` (the frame behind its Ethernet header; padding may follow).
///
/// # Errors
/// Too short, of another kind or operation, or from an impossible sender.
pub fn parse(payload: &[u8]) -> Result<Arp, ArpError> {
    let window: &[u8; MESSAGE] = payload.first_chunk().ok_or(ArpError::TooShort)?;
    if window[..6] != KIND {
        return Err(ArpError::BadKind);
    }
    let operation = match get16(window, 6) {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return Err(ArpError::BadOperation),
    };
    let mac = |at: usize| Mac(std::array::from_fn(|i| window[at + i]));
    let arp = Arp {
        operation,
        sender_mac: mac(8),
        sender_ip: get32(window, 14),
        target_mac: mac(18),
        target_ip: get32(window, 24),
    };
    if arp.sender_mac.is_unicast() { Ok(arp) } else { Err(ArpError::BadSender) }
}

/// Writes the message.
pub fn emit(window: &mut [u8; MESSAGE], arp: &Arp) {
    window[..6].copy_from_slice(&KIND);
    put16(window, 6, if arp.operation == Operation::Request { 1 } else { 2 });
    window[8..14].copy_from_slice(&arp.sender_mac.0);
    put32(window, 14, arp.sender_ip);
    window[18..24].copy_from_slice(&arp.target_mac.0);
    put32(window, 24, arp.target_ip);
}

/// Turns the frame of a request into its reply, in place: `mac` has the address asked for. `l3`: where the message
/// begins. Returns the frame's length, which stays; `None`: no valid request, nothing changed.
pub fn reply_in_place(frame: &mut [u8], l3: u8, mac: Mac) -> Option<usize> {
    let payload = frame.get_mut(usize::from(l3)..)?;
    let request = parse(payload).ok().filter(|arp| arp.operation == Operation::Request)?;
    let reply = Arp {
        operation: Operation::Reply,
        sender_mac: mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    };
    emit(payload.first_chunk_mut()?, &reply);
    ethernet::set_addresses(frame, request.sender_mac, mac);
    Some(frame.len())
}
