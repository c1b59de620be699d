//! What differs between the families: a TCP or UDP packet as the datapath sees it, of IPv4 or of IPv6. All else is written once.

use arch::HashKey;
use packet::{Rewrite, V4, V6, build, icmp, icmpv6, ipv4, ipv6, rewrite_v4, rewrite6};
use shm_layout::neighbours::{Ip, as_v4, ip4};

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::{Direction, Key, Tuple, Wanted};

/// A packet of either family; headers checked.
pub(crate) trait Packet: Copy {
    /// IPv6?
    const V6: bool;
    /// What its session is looked up by.
    type Wanted: Wanted;

    /// All but its addresses.
    fn head(&self) -> &V4;
    /// From.
    fn source(&self) -> Ip;
    /// To.
    fn destination(&self) -> Ip;
    /// Can a host send from its source?
    fn is_sourced(&self) -> bool;
    /// What its session is looked up by.
    fn wanted(&self, key: &HashKey) -> Self::Wanted;
    /// Takes 1 off TTL or hop limit. `None`: another frame.
    fn one_hop(&self, frame: &mut [u8]) -> Option<()>;
    /// The reset that refuses it.
    fn reset(&self, buf: &mut [u8], frame: &[u8]) -> Option<usize>;
    /// The error that tells its sender that `most` bytes fit, from where it was sent to. `None`: it did not ask to be told.
    fn too_big(&self, buf: &mut [u8], frame: &[u8], most: u32) -> Option<usize>;
    /// Sends it on as the session says.
    fn forward<I: Io>(&self, runner: &mut SlotRunner, io: &mut I, place: usize, at: (u32, Direction), shift: u32);
}

impl Packet for V4 {
    const V6: bool = false;
    type Wanted = Key;

    #[inline(always)]
    fn head(&self) -> &V4 {
        self
    }
    #[inline(always)]
    fn source(&self) -> Ip {
        ip4(self.src)
    }
    #[inline(always)]
    fn destination(&self) -> Ip {
        ip4(self.dst)
    }
    #[inline(always)]
    fn is_sourced(&self) -> bool {
        ipv4::is_source(self.src)
    }
    #[inline(always)]
    fn wanted(&self, _key: &HashKey) -> Key {
        Key::new(self.src, self.sport, self.dst, self.dport, self.proto)
    }
    fn one_hop(&self, frame: &mut [u8]) -> Option<()> {
        let (src, dst, sport, dport) = (self.src, self.dst, self.sport, self.dport);
        rewrite_v4(frame, self, &Rewrite { src, dst, sport, dport, seq_add: 0, ack_sub: 0 });
        Some(())
    }
    fn reset(&self, buf: &mut [u8], frame: &[u8]) -> Option<usize> {
        build::tcp_rst(buf, frame, self)
    }
    fn too_big(&self, buf: &mut [u8], frame: &[u8], most: u32) -> Option<usize> {
        // RFC 1191.
        let asked = frame.get(usize::from(self.l3)..).is_some_and(ipv4::dont_fragment);
        let kind = (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED);
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        if asked { build::icmp_error(buf, frame, self, self.dst, kind, most) } else { None }
    }
    #[inline(always)]
    fn forward<I: Io>(
        &self,
        runner: &mut SlotRunner,
        io: &mut I,
        place: usize,
        (index, direction): (u32, Direction),
        shift: u32,
    ) {
        runner.forward(io, place, self, index, direction, shift);
    }
}

impl Packet for V6 {
    const V6: bool = true;
    type Wanted = Tuple;

    fn head(&self) -> &V4 {
        &self.head
    }
    fn source(&self) -> Ip {
        self.src
    }
    fn destination(&self) -> Ip {
        self.dst
    }
    fn is_sourced(&self) -> bool {
        // Of one link: the way back would be by the port it came in, which no route tells.
        ipv6::is_source(self.src) && !ipv6::is_link_local(self.src)
    }
    fn wanted(&self, key: &HashKey) -> Tuple {
        Tuple::new([self.src, self.dst], self.head.sport, self.head.dport, self.head.proto, key)
    }
    fn one_hop(&self, frame: &mut [u8]) -> Option<()> {
        rewrite6::one_hop(frame, self)
    }
    fn reset(&self, buf: &mut [u8], frame: &[u8]) -> Option<usize> {
        build::tcp_rst_v6(buf, frame, self)
    }
    fn too_big(&self, buf: &mut [u8], frame: &[u8], most: u32) -> Option<usize> {
        // RFC 4443 §3.2. None smaller than what every link carries is told.
        let most = most.max(ipv6::MIN_MTU.into());
        icmpv6::error(buf, frame, self, self.dst, (icmpv6::PACKET_TOO_BIG, 0), most)
    }
    fn forward<I: Io>(
        &self,
        runner: &mut SlotRunner,
        io: &mut I,
        place: usize,
        (index, direction): (u32, Direction),
        shift: u32,
    ) {
        runner.forward_v6(io, place, self, index, direction, shift);
    }
}

/// Is it TCP or UDP between IPv6 addresses? (An IPv4 address in IPv6's clothes is nobody's on a wire, RFC 4291 §2.5.5, and would
/// be taken for the IPv4 address itself.)
pub(crate) fn balanced(packet: &V6) -> bool {
    matches!(packet.head.proto, ipv4::TCP | ipv4::UDP) && as_v4(packet.src).is_none() && as_v4(packet.dst).is_none()
}

/// Has a UDP datagram no checksum?
pub(crate) fn unchecked(packet: &V6, frame: &[u8]) -> bool {
    let checksum = packet.head.segment(frame).get(6..8);
    packet.head.proto == ipv4::UDP && checksum.is_none_or(|bytes| bytes == [0, 0])
}
