//! Keys with a fixed set of words.

use crate::text::words;

words! {
    /// How a worker waits for packets.
    Poll, "poll mode" {
        /// Sleeps after empty polls.
        Adaptive = "adaptive",
        /// Never sleeps.
        Busy = "busy",
    }
}

words! {
    /// What happens when the holder dies unasked.
    OnPrimaryDeath, "reaction" {
        /// Workers forward on; the planned restart waits for an operator or a worker's death.
        Hold = "hold",
        /// The planned restart is made at once.
        Restart = "restart",
    }
}

words! {
    /// Layer-4 protocol of a service.
    Protocol, "protocol" {
        /// RFC 9293.
        Tcp = "tcp",
        /// RFC 768.
        Udp = "udp",
    }
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

words! {
    /// How packets reach the real server.
    Mode, "mode" {
        /// Both addresses are rewritten; replies come back by the local address.
        FullNat = "fullnat",
        /// Only the destination is rewritten; the server's gateway is the appliance.
        Nat = "nat",
        /// Only the next hop changes; the server holds the VIP.
        Dr = "dr",
        /// The packet is wrapped; the server holds the VIP and unwraps.
        Tunnel = "tunnel",
    }
}

words! {
    /// Wrapping of the tunnel mode.
    Tunnel, "tunnel kind" {
        /// IP in IP (RFC 2003).
        Ipip = "ipip",
        /// Generic UDP Encapsulation.
        Gue = "gue",
    }
}

words! {
    /// Which server takes a new session.
    Scheduler, "scheduler" {
        /// Each in turn.
        Rr = "rr",
        /// Each in turn by weight, smooth.
        Wrr = "wrr",
        /// Fewest sessions.
        Lc = "lc",
        /// Fewest sessions per weight.
        Wlc = "wlc",
        /// By the client's address.
        SourceIp = "source-ip",
        /// By the client's address and port.
        SourceIpPort = "source-ip-port",
        /// Consistent hashing by a Maglev table.
        Maglev = "maglev",
    }
}

words! {
    /// How the server learns the client's address.
    ClientAddress, "way to tell the client's address" {
        /// It does not.
        None = "none",
        /// TCP option.
        Toa = "toa",
        /// PROXY protocol version 2.
        ProxyV2 = "proxy-v2",
        /// UDP option.
        Uoa = "uoa",
    }
}

words! {
    /// Whether a pool that goes down at once is believed only after three intervals.
    Panic, "panic rule" {
        /// The rule holds.
        On = "on",
        /// Every result is believed at once.
        Off = "off",
    }
}

words! {
    /// What a check does.
    HealthKind, "check type" {
        /// A TCP connection is accepted.
        Tcp = "tcp",
        /// An HTTP request is answered with an expected status.
        Http = "http",
        /// The same over TLS.
        Https = "https",
        /// A datagram is answered as expected.
        Udp = "udp",
        /// A DNS query is answered.
        Dns = "dns",
        /// An ICMP echo is answered.
        Ping = "ping",
        /// No check: the server counts as up.
        None = "none",
    }
}

words! {
    /// What the operator wants of a server.
    Admin, "admin state" {
        /// Takes sessions.
        Enabled = "enabled",
        /// Takes no new sessions, keeps the old ones.
        Drain = "drain",
        /// Takes no sessions; the old ones are ended.
        Disabled = "disabled",
    }
}
