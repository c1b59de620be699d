//! Counters of a slot: two copies and one index, flipped once per burst, so that the conservation law
//!
//! `rx + from_ring + from_kernel + originated = tx + to_ring + to_kernel + Σ drops + held`
//!
//! holds for every reader at any instant, and after a SIGKILL: a torn burst counts in nothing.

use crate::failpoint::{self, Bug, Op};
use crate::row;
use crate::sync::{AtomicU64, Ordering, fence};

/// Declares the drop reasons once: enum, counter name, document row.
macro_rules! drop_reasons {
    ($($name:ident $text:literal $doc:literal;)*) => {
        /// Why a packet ended here. Each has a counter `drops[name]`; there is none called "other".
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $doc] $name,)* }

        impl DropReason {
            /// All reasons, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The counter's name in `stats show`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// What it means, for the operator.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

drop_reasons! {
    TooShort "too_short" "Frame ends inside a header.";
    MultiSegment "multi_segment" "Packet in several buffers: larger than the pool's buffers.";
    NotOurMac "not_our_mac" "Destination MAC is another station's.";
    UnknownEthertype "unknown_ethertype" "Neither IPv4 nor ARP (LLDP, IPX, ...).";
    UnexpectedVlan "unexpected_vlan" "Tag differs from the port's.";
    Ipv6 "ipv6" "IPv6 where no IPv6 address is configured.";
    BadIpHeader "bad_ip_header" "Version, header length or total length impossible.";
    BadIpChecksum "bad_ip_checksum" "IPv4 header checksum wrong.";
    IpFragment "ip_fragment" "Fragment: ports unknown.";
    BadSource "bad_source" "Source is multicast, broadcast, loopback, zero or one of our own addresses.";
    BadTcpHeader "bad_tcp_header" "TCP data offset or length impossible.";
    BadTcpFlags "bad_tcp_flags" "Combination no stack sends (SYN+FIN, SYN+RST, none).";
    BadUdpHeader "bad_udp_header" "UDP length impossible.";
    BadIcmp "bad_icmp" "ICMP cut short, wrong checksum, or a type not answered.";
    BadArp "bad_arp" "ARP cut short, foreign hardware type, or not for an address of ours.";
    UnknownProtocol "unknown_protocol" "IP protocol that is not balanced (GRE, SCTP, ...).";
    NotForUs "not_for_us" "Destination is no address of this appliance.";
    NoService "no_service" "Address is a VIP, port or protocol has no service.";
    NoServer "no_server" "Service has no eligible real server.";
    ServiceFull "service_full" "Service has reached max_sessions.";
    NoPort "no_port" "No free local port towards the chosen server.";
    TableFull "table_full" "Slot's session table is full.";
    IndexFull "index_full" "Both index buckets full after the bounded displacement.";
    NoSession "no_session" "Belongs to no session in any slot, and may not begin one.";
    BadReset "bad_reset" "RST whose number fits neither the sender's end nor the peer's ack.";
    BadRecord "bad_record" "Session record damaged: quarantined.";
    TtlExpired "ttl_expired" "TTL was 1 or 0.";
    TooBig "too_big" "Longer than the MTU of the port it would leave by.";
    NoNeighbour "no_neighbour" "Next hop did not answer, or too many packets wait for it.";
    NoRoute "no_route" "Destination is not on-link and no gateway is configured.";
    RateLimited "rate_limited" "Own answers (RST, echo) above their rate.";
    TxFull "tx_full" "Port did not take the packet, one retry included.";
    RingFull "ring_full" "The other slot does not take its packets fast enough.";
    NoBuffer "no_buffer" "Buffer pool empty.";
    NoKernelInterface "no_kernel_interface" "For the machine itself, and the port has no kernel interface.";
    KernelPoliced "kernel_policed" "For the machine itself, above the rate of its class.";
    HandledArp "handled_arp" "ARP answer taken in by control.";
    HandledReset "handled_reset" "Turned into a reset towards its sender elsewhere: swallowed.";
    Disabled "disabled" "Session ended by an operator (disable, kill, del --now).";
    LostInCrash "lost_in_crash" "Held by a worker that died.";
    Ipv6Extension "ipv6_extension" "IPv6 extension header cut short, of a kind that is not passed on (routing of type 0), or more than are walked.";
    NoUdpChecksum "no_udp_checksum" "IPv6 UDP datagram without checksum (RFC 8200 forbids it).";
    BadNd "bad_nd" "Neighbour discovery message malformed (RFC 4861 §7.1), or not for an address of ours.";
    HandledNd "handled_nd" "Neighbour advertisement taken in by control.";
}

/// Counters that are not drops, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Flow {
    /// Taken from the port's queue.
    Rx,
    /// Taken from another slot's ring.
    FromRing,
    /// Taken from the kernel interface.
    FromKernel,
    /// Made here: RSTs, requests, announcements; what control sends by this slot.
    Originated,
    /// Handed to the port.
    Tx,
    /// Copied to another slot's ring.
    ToRing,
    /// Handed to the kernel interface.
    ToKernel,
    /// Waiting at the end of the burst: unsent rest, packets waiting for a neighbour. Not cumulative.
    Held,
    /// Bytes taken from the port.
    RxBytes,
    /// Bytes handed to the port.
    TxBytes,
    /// Sessions begun.
    Created,
    /// Sessions ended.
    Ended,
    /// SYNs and first datagrams refused, whatever the reason.
    Refused,
}

/// Words before the drop counters.
pub const FLOWS: usize = 16;
/// Words of one copy.
pub const WORDS: usize = 64;
const _: () = assert!(FLOWS + DropReason::ALL.len() <= WORDS);
const _: () = assert!((Flow::Refused as usize) < FLOWS);

/// One consistent reading, or the working copy of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts(pub [u64; WORDS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Counts {
    /// One flow counter.
    #[inline(always)]
    #[must_use]
    pub fn flow(&self, flow: Flow) -> u64 {
        self.0[flow as usize]
    }
    /// One drop counter.
    #[inline(always)]
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.0[FLOWS + reason as usize]
    }
    /// Adds to a flow counter.
    #[inline(always)]
    pub fn add(&mut self, flow: Flow, n: u64) {
        self.0[flow as usize] += n;
    }
    /// Counts one drop.
    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) {
        self.0[FLOWS + reason as usize] += 1;
    }
    /// Counts several drops.
    #[inline(always)]
    pub fn drop_many(&mut self, reason: DropReason, n: u64) {
        self.0[FLOWS + reason as usize] += n;
    }
    /// Sets the number of packets held.
    #[inline(always)]
    pub fn set_held(&mut self, n: u64) {
        self.0[Flow::Held as usize] = n;
    }
    /// Adds another slot's counts, for sums.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to += from;
        }
    }
    /// Both sides of the conservation law: what came in, what went out or is held.
    #[must_use]
    pub fn balance(&self) -> (u64, u64) {
        let into = [Flow::Rx, Flow::FromRing, Flow::FromKernel, Flow::Originated];
        let out = [Flow::Tx, Flow::ToRing, Flow::ToKernel, Flow::Held];
        let drops: u64 = self.0[FLOWS..FLOWS + DropReason::ALL.len()].iter().sum();
        (into.iter().map(|f| self.flow(*f)).sum(), out.iter().map(|f| self.flow(*f)).sum::<u64>() + drops)
    }
}

/// Shape: flip number, two copies. Writer: the slot's owner. Readers: all. Units: packets, bytes, sessions.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct CounterBlock<const W: usize = WORDS> {
    /// Flips so far; copy `flips & 1` is the valid one.
    flips: AtomicU64,
    reserved: [AtomicU64; 7],
    copies: [[AtomicU64; W]; 2],
}
row!(CounterBlock, size 64 + 2 * 8 * WORDS, align 64, copies @ 64);

impl<const W: usize> Default for CounterBlock<W> {
    /// Zeros, outside the tables. (`W`: models do with fewer words.)
    fn default() -> Self {
        let copies = std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::default()));
        Self { flips: AtomicU64::default(), reserved: Default::default(), copies }
    }
}

impl<const W: usize> CounterBlock<W> {
    /// Makes `counts` the valid copy. Owner only.
    #[inline]
    pub fn flip(&self, counts: &Counts) {
        let _op = failpoint::enter(Op::Flip);
        let next = self.flips.load(Ordering::Relaxed).wrapping_add(1); // Relaxed: own word.
        if failpoint::planted(Bug::FlipBeforeCopy) {
            self.flips.store(next, Ordering::Release);
        }
        // The last flip is seen by whoever sees a word of this one: pairs with the fence in `read`. Nothing on x86.
        fence(Ordering::Release);
        for (to, from) in self.copies[usize::from(next & 1 == 1)].iter().zip(&counts.0) {
            to.store(*from, Ordering::Relaxed); // Relaxed: ordered by the Release below.
            failpoint::store();
        }
        // Pairs with both loads in `read`: whoever sees the flip sees the copy.
        self.flips.store(next, Ordering::Release);
        failpoint::store();
    }

    /// A consistent reading; `None` after 1,000 tries against a writer that flips all the time.
    #[must_use]
    pub fn read(&self) -> Option<Counts> {
        for _ in 0..1000 {
            let before = self.flips.load(Ordering::Acquire); // Pairs with the Release in `flip`.
            let mut counts = Counts::default();
            for (to, from) in counts.0.iter_mut().zip(&self.copies[usize::from(before & 1 == 1)]) {
                *to = from.load(Ordering::Relaxed); // Relaxed: validated by the second load.
            }
            fence(Ordering::Acquire); // The reads above stay before the check below.
            if self.flips.load(Ordering::Relaxed) == before {
                return Some(counts);
            }
            std::hint::spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Mapping;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn law_holds_for_a_concurrent_reader() {
        let map = Mapping::anonymous(1 << 16, false).unwrap();
        let block = map.one::<CounterBlock>(0).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut counts = Counts::default();
                for i in 0..200_000_u64 {
                    counts.add(Flow::Rx, i % 33);
                    counts.add(Flow::Tx, i % 33 / 2);
                    counts.drop_many(DropReason::NoService, i % 33 - i % 33 / 2);
                    block.flip(&counts);
                }
                stop.store(true, Ordering::Release);
            });
            let mut seen = 0;
            while !stop.load(Ordering::Acquire) {
                if let Some(counts) = block.read() {
                    let (a, b) = counts.balance();
                    assert_eq!(a, b);
                    seen += 1;
                }
            }
            assert!(seen > 0);
        });
    }
}
