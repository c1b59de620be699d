//! One packet.
//!
//! A packet under way lies in a [`Ledger`](crate::Ledger) and is looked at through [`PacketMut`], which
//! borrows the ledger. [`Mbuf`] is an owned one, for tests and rare packets: moved, never copied.
//! Fields are read here, inlined, at the offsets the C compiler gave (`dpdk-sys/shim.h`): no call per packet.

use std::marker::PhantomData;
use std::ptr::NonNull;

use dpdk_sys as sys;

/// Received: the driver found the IPv4 header checksum wrong.
pub const RX_IP_CKSUM_BAD: u64 = 1 << 4;
/// Received: the driver found the IPv4 header checksum right.
pub const RX_IP_CKSUM_GOOD: u64 = 1 << 7;
/// Received: the driver found the TCP or UDP checksum wrong.
pub const RX_L4_CKSUM_BAD: u64 = 1 << 3;
/// Received: the driver found the TCP or UDP checksum right.
pub const RX_L4_CKSUM_GOOD: u64 = 1 << 8;
/// Received: [`PacketMut::rss_hash`] is valid.
pub const RX_RSS_HASH: u64 = 1 << 1;
/// To send: the driver fills the IPv4 header checksum. Needs [`PacketMut::set_tx_offload`].
pub const TX_IP_CKSUM: u64 = 1 << 54;
/// To send: the packet is IPv4. Needed with all checksum flags.
pub const TX_IPV4: u64 = 1 << 55;
/// To send: the driver fills the TCP checksum; the field holds the pseudo header's sum.
pub const TX_TCP_CKSUM: u64 = 1 << 52;
/// To send: the driver fills the UDP checksum; the field holds the pseudo header's sum.
pub const TX_UDP_CKSUM: u64 = 3 << 52;

/// Bytes before the packet for [`PacketMut::prepend`], when it comes from the pool.
pub const HEADROOM: u16 = {
    assert!(sys::LB_PKTMBUF_HEADROOM <= 1024);
    #[allow(clippy::cast_possible_truncation, reason = "asserted above")]
    {
        sys::LB_PKTMBUF_HEADROOM as u16
    }
};

/// A pointer to an mbuf and the reads and writes on it. All methods need a live mbuf that nobody else writes.
#[derive(Clone, Copy)]
pub(crate) struct Raw(pub(crate) NonNull<sys::rte_mbuf>);

impl Raw {
    pub(crate) fn from_addr(addr: u64) -> Option<Self> {
        let addr = usize::try_from(addr).ok()?;
        NonNull::new(std::ptr::with_exposed_provenance_mut(addr)).map(Raw)
    }

    pub(crate) fn addr(self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    /// # Safety
    /// The mbuf is live, `T` is the field's type and `offset` its place.
    #[inline(always)]
    unsafe fn get<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the caller's promise; sizes are asserted in shim.c.
        unsafe { self.0.as_ptr().byte_add(offset as usize).cast::<T>().read() }
    }

    /// # Safety
    /// As for `get`, and nobody else uses the mbuf.
    #[inline(always)]
    unsafe fn set<T: Copy>(self, offset: u32, value: T) {
        // SAFETY: the caller's promise; sizes are asserted in shim.c.
        unsafe { self.0.as_ptr().byte_add(offset as usize).cast::<T>().write(value) }
    }

    /// Does its header point into its own buffer, behind the mbuf itself, as a pool of `room` bytes makes it?
    pub(crate) fn is_whole(self, room: u16) -> bool {
        // SAFETY: the address is an mbuf's of a pool (`Ledger::raw`); whatever stands in it can be read.
        let (buffer, offset, length, size): (u64, u16, u16, u16) = unsafe {
            (
                self.get(sys::LB_MBUF_BUF_ADDR),
                self.get(sys::LB_MBUF_DATA_OFF),
                self.get(sys::LB_MBUF_DATA_LEN),
                self.get(sys::LB_MBUF_BUF_LEN),
            )
        };
        let own = self.addr() + u64::from(sys::LB_MBUF_SIZE);
        let fits = u32::from(offset) + u32::from(length) <= u32::from(size);
        buffer == own && u32::from(size) <= u32::from(room) + u32::from(HEADROOM) && fits
    }

    /// Brings a live mbuf of whatever state to that of a free one: one reference, one segment, no next.
    ///
    /// # Safety
    /// The address is an mbuf's of a pool, and nobody else uses it.
    pub(crate) unsafe fn reset(self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.set::<u64>(sys::LB_MBUF_NEXT, 0);
            self.set::<u16>(sys::LB_MBUF_NB_SEGS, 1);
            self.set::<u16>(sys::LB_MBUF_REFCNT, 1);
            self.set::<u64>(sys::LB_MBUF_OL_FLAGS, 0);
        }
    }
}

/// A packet, borrowed: bytes and what the driver says about them.
///
/// Only the first segment is visible. A packet of several ([`nb_segs`](Self::nb_segs) > 1) does not occur
/// while the pool's data room holds the port's MTU; whoever sees one should drop it.
pub struct PacketMut<'a> {
    raw: Raw,
    /// It borrows the ledger (or the `Mbuf`) mutably.
    owner: PhantomData<&'a mut [u8]>,
}

/// Asked for more bytes than the packet or its buffer has; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes asked, {room} there: the pool's data room or headroom is too small for this packet")]
pub struct NoRoom {
    /// Bytes asked for.
    pub asked: usize,
    /// Bytes there.
    pub room: usize,
}

impl<'a> PacketMut<'a> {
    /// # Safety
    /// A live mbuf, used by nobody else as long as `'a` lasts.
    #[inline(always)]
    pub(crate) unsafe fn new(raw: Raw) -> Self {
        PacketMut { raw, owner: PhantomData }
    }

    /// The mbuf's address: a name in ledgers and traces, never followed.
    #[inline]
    pub fn addr(&self) -> u64 {
        self.raw.addr()
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: `new`'s promise.
        unsafe { self.raw.get(offset) }
    }

    #[inline(always)]
    fn write<T: Copy>(&mut self, offset: u32, value: T) {
        // SAFETY: `new`'s promise, and `&mut self`.
        unsafe { self.raw.set(offset, value) }
    }

    #[inline(always)]
    fn start(&self) -> *mut u8 {
        let buf: *mut u8 = self.read(sys::LB_MBUF_BUF_ADDR);
        buf.wrapping_add(usize::from(self.read::<u16>(sys::LB_MBUF_DATA_OFF)))
    }

    /// Bytes in the (first) segment.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.read::<u16>(sys::LB_MBUF_DATA_LEN))
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the frame, from the Ethernet header.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: data_off + data_len lie in the buffer: drivers and our own methods keep it so.
        unsafe { std::slice::from_raw_parts(self.start(), self.len()) }
    }

    /// The same, to write.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `data`, and `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len()) }
    }

    /// Consumes the view for a slice that lives as long as the borrow of the ledger.
    #[inline(always)]
    pub fn into_data(self) -> &'a mut [u8] {
        // SAFETY: as `data_mut`; the view is consumed, so the slice is the only access for 'a.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len()) }
    }

    /// Bytes that fit behind the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        let buf: usize = self.read::<u16>(sys::LB_MBUF_BUF_LEN).into();
        buf.saturating_sub(self.headroom() + self.len())
    }

    /// Bytes that fit before the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.read::<u16>(sys::LB_MBUF_DATA_OFF).into()
    }

    #[inline]
    fn put_len(&mut self, len: usize) {
        let len16 = u16::try_from(len).expect("checked against buf_len, which is a u16");
        self.write::<u16>(sys::LB_MBUF_DATA_LEN, len16);
        self.write::<u32>(sys::LB_MBUF_PKT_LEN, len16.into());
    }

    /// Makes the packet `len` bytes long, cutting or growing at its end (grown bytes are what the buffer held).
    #[inline]
    pub fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        let room = self.len() + self.tailroom();
        if len > room {
            return Err(NoRoom { asked: len, room });
        }
        self.put_len(len);
        Ok(())
    }

    /// Cuts `n` bytes off the end.
    #[inline]
    pub fn trim(&mut self, n: usize) -> Result<(), NoRoom> {
        let room = self.len();
        self.put_len(room.checked_sub(n).ok_or(NoRoom { asked: n, room })?);
        Ok(())
    }

    /// Cuts `n` bytes off the front.
    #[inline]
    pub fn adj(&mut self, n: usize) -> Result<(), NoRoom> {
        let room = self.len();
        let rest = room.checked_sub(n).ok_or(NoRoom { asked: n, room })?;
        let off = u16::try_from(self.headroom() + n).expect("data_off + data_len fit buf_len, a u16");
        self.write::<u16>(sys::LB_MBUF_DATA_OFF, off);
        self.put_len(rest);
        Ok(())
    }

    /// Puts `n` bytes before the packet (what the headroom held).
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        let room = self.headroom();
        let off = room.checked_sub(n).ok_or(NoRoom { asked: n, room })?;
        let len = self.len() + n;
        self.write::<u16>(sys::LB_MBUF_DATA_OFF, u16::try_from(off).expect("less than it was"));
        self.put_len(len);
        Ok(())
    }

    /// Replaces the packet by `bytes`, at the pool's usual headroom.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let buf: usize = self.read::<u16>(sys::LB_MBUF_BUF_LEN).into();
        let head = usize::from(HEADROOM).min(buf);
        if bytes.len() > buf - head {
            return Err(NoRoom { asked: bytes.len(), room: buf - head });
        }
        self.write::<u16>(sys::LB_MBUF_DATA_OFF, u16::try_from(head).expect("at most HEADROOM"));
        self.put_len(bytes.len());
        self.data_mut().copy_from_slice(bytes);
        Ok(())
    }

    /// Segments of the packet.
    #[inline(always)]
    pub fn nb_segs(&self) -> u16 {
        self.read(sys::LB_MBUF_NB_SEGS)
    }

    /// Bytes of all segments.
    #[inline]
    pub fn packet_len(&self) -> u32 {
        self.read(sys::LB_MBUF_PKT_LEN)
    }

    /// The port it came from.
    #[inline]
    pub fn port(&self) -> u16 {
        self.read(sys::LB_MBUF_PORT)
    }

    /// Offload flags (`RX_…`, `TX_…` of this module).
    #[inline(always)]
    pub fn ol_flags(&self) -> u64 {
        self.read(sys::LB_MBUF_OL_FLAGS)
    }

    /// The NIC's RSS hash; valid with [`RX_RSS_HASH`].
    #[inline]
    pub fn rss_hash(&self) -> u32 {
        self.read(sys::LB_MBUF_RSS)
    }

    /// Asks the driver for checksums: `flags` of `TX_…`, lengths of the Ethernet and IP header.
    #[inline]
    pub fn set_tx_offload(&mut self, flags: u64, l2_len: u8, l3_len: u16) {
        // rte_mbuf_tx_offload: l2_len 7 bits, l3_len 9 bits, the rest (TSO, outer) unused.
        let lens = u64::from(l2_len & 0x7f) | u64::from(l3_len & 0x1ff) << 7;
        self.write::<u64>(sys::LB_MBUF_TX_OFFLOAD, lens);
        self.write::<u64>(sys::LB_MBUF_OL_FLAGS, flags);
    }

    /// Forgets what the driver said at reception. Flags of RX and TX share the word: call it (or
    /// [`set_tx_offload`](Self::set_tx_offload)) before sending.
    #[inline]
    pub fn clear_offload(&mut self) {
        self.write::<u64>(sys::LB_MBUF_OL_FLAGS, 0);
    }
}

/// An owned packet. Dropping it gives it back to its pool (all segments), in the owner's thread: it is not
/// `Send`, as the pool is single-consumer, single-producer. Not seen by crash recovery: see
/// [`Ledger`](crate::Ledger) for packets that must survive a kill.
pub struct Mbuf {
    raw: Raw,
}

impl Mbuf {
    /// # Safety
    /// A live mbuf that is handed over: named by no ledger, in no ring.
    pub(crate) unsafe fn from_raw(raw: Raw) -> Self {
        Mbuf { raw }
    }

    pub(crate) fn into_raw(self) -> Raw {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    /// The packet.
    pub fn packet(&mut self) -> PacketMut<'_> {
        // SAFETY: owned, and borrowed mutably for the view's life.
        unsafe { PacketMut::new(self.raw) }
    }

    /// The bytes.
    pub fn data(&self) -> &[u8] {
        // SAFETY: owned; the view only reads and does not outlive the borrow.
        let view: PacketMut<'_> = unsafe { PacketMut::new(self.raw) };
        // SAFETY: as PacketMut::data; tied to the borrow of self by the signature.
        unsafe { std::slice::from_raw_parts(view.start(), view.len()) }
    }

    /// The mbuf's address.
    pub fn addr(&self) -> u64 {
        self.raw.addr()
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mbuf({:#x}, {} bytes)", self.addr(), self.data().len())
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: owned, and gone after this.
        unsafe { sys::lb_free(self.raw.0.as_ptr()) }
    }
}
