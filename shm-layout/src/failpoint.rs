//! Places where the process dies when it is told to, so that tests can kill it after any store of any operation.
//!
//! An operation is entered, then every store in it is counted. Without feature `failpoints` both are nothing. With it,
//! `LB_DIE_AT=create:3` kills the process (SIGKILL to itself) right after the third store of the first `create`;
//! `LB_DIE_AT=create:3@50` lets 49 creates pass before. An operation with fewer stores ends unharmed, and the next is
//! the one: after [`counted::UNREACHED`] of them a line on stderr says so, and how many stores the longest had.
//! Operations within another (a key that makes room for `create`) count for themselves.
//!
//! In the process of a test, [`counted::arm`] panics instead, and [`counted::plant`] puts a bug in that tests must find.

/// Declares the operations once: enum and name in `LB_DIE_AT`.
macro_rules! operations {
    ($($name:ident $text:literal $doc:literal;)*) => {
        /// What is under way when the process dies.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op { $(#[doc = $doc] $name,)* }

        impl Op {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Its name in `LB_DIE_AT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

operations! {
    Other "other" "Stores outside the operations below.";
    Create "create" "A session begins.";
    Close "close" "A session ends.";
    Free "free" "The wheel gives a record back.";
    Relink "relink" "The wheel puts a record further on.";
    Tick "tick" "The wheel moves on.";
    Displace "displace" "A key makes room in the index.";
    Port "port" "A local port is picked.";
    Sweep "sweep" "Sessions are ended by order.";
    Redo "redo" "A successor finishes a half-made change.";
    Flip "flip" "A burst's counters become the valid ones.";
    Push "push" "A record goes into a ring.";
    Pop "pop" "A record leaves a ring.";
    Own "own" "A slot is taken.";
    Recover "recover" "A dead owner's buffers are given back.";
    Release "release" "A slot is let go.";
}

/// Mistakes that tests plant to see them found. None is in a build without feature `failpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A change is carried out without its intent.
    NoIntent = 1,
    /// The intent says "valid" before its last words are stored.
    IntentTooEarly = 2,
    /// The intent is cleared before the last counter is stored.
    IntentGoneTooEarly = 3,
    /// What a dead owner held is not counted as lost.
    LostUncounted = 4,
    /// Doing a change again counts again.
    RedoCounts = 5,
    /// A ring's record is visible before its frame is.
    TailBeforeFrame = 6,
    /// A packet of another slot's session is answered by a reset.
    StrayReset = 7,
    /// A neighbour's row is given to another under the same tag.
    TagKept = 8,
    /// A flip makes the copy valid before it is complete.
    FlipBeforeCopy = 9,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoIntent,
        Self::IntentTooEarly,
        Self::IntentGoneTooEarly,
        Self::LostUncounted,
        Self::RedoCounts,
        Self::TailBeforeFrame,
        Self::StrayReset,
        Self::TagKept,
        Self::FlipBeforeCopy,
    ];
}

#[cfg(feature = "failpoints")]
pub use counted::{enter, planted, store};
#[cfg(not(feature = "failpoints"))]
pub use nothing::{enter, planted, store};

/// As it is shipped.
pub mod nothing {
    use super::{Bug, Op};

    /// Nothing.
    #[derive(Debug)]
    pub struct Scope;

    /// Nothing.
    #[inline(always)]
    pub const fn enter(_op: Op) -> Scope {
        Scope
    }
    /// Nothing.
    #[inline(always)]
    pub const fn store() {}
    /// No.
    #[inline(always)]
    #[must_use]
    pub const fn planted(_bug: Bug) -> bool {
        false
    }
}

/// As it is tested.
pub mod counted {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::{Bug, Op};

    /// Operations that must have ended before the store that was asked for until it is said that there is none.
    pub const UNREACHED: u64 = 16;

    /// Of `LB_DIE_AT`: `operation:store`, `operation:store@first`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Order {
        op: Op,
        store: u64,
        /// Number of the first such operation that counts, from 1.
        first: u64,
    }

    impl Order {
        fn parse(text: &str) -> Option<Self> {
            let (name, rest) = text.split_once(':')?;
            let (store, first) = rest.split_once('@').unwrap_or((rest, "1"));
            let op = Op::ALL.iter().copied().find(|op| op.name() == name)?;
            Some(Self { op, store: store.parse().ok()?, first: first.parse().ok()? })
        }
    }

    /// The operation a thread is in.
    #[derive(Clone, Copy)]
    struct Now {
        op: Op,
        stores: u64,
        /// It is one that the order is about.
        meant: bool,
    }

    const OUTSIDE: Now = Now { op: Op::Other, stores: 0, meant: false };

    thread_local! {
        static NOW: Cell<Now> = const { Cell::new(OUTSIDE) };
        static LEFT: Cell<u64> = const { Cell::new(0) };
        static SPARED: Cell<Option<Op>> = const { Cell::new(None) };
        static STRUCK: Cell<Option<Op>> = const { Cell::new(None) };
        static PLANTED: Cell<u8> = const { Cell::new(0) };
    }

    /// Operations of the order's kind begun, and ended unharmed; stores of the longest. Of the whole process.
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    static UNHARMED: AtomicU64 = AtomicU64::new(0);
    static LONGEST: AtomicU64 = AtomicU64::new(0);

    fn order() -> Option<Order> {
        static ORDER: OnceLock<Option<Order>> = OnceLock::new();
        *ORDER.get_or_init(|| {
            let text = std::env::var("LB_DIE_AT").ok()?;
            let order = Order::parse(&text);
            if order.is_none() {
                let known: Vec<_> = Op::ALL.iter().map(|op| op.name()).collect();
                eprintln!("LB_DIE_AT={text}: nothing here is called so; hint: OPERATION:STORE[@FIRST] with {known:?}");
            }
            order
        })
    }

    /// An operation under way; it ends with this value, and the one around it goes on.
    #[derive(Debug)]
    pub struct Scope {
        outer: (Op, u64, bool),
    }

    /// Begins an operation on this thread.
    #[must_use]
    pub fn enter(op: Op) -> Scope {
        // Relaxed, here and below: tallies.
        let meant = order().is_some_and(|order| order.op == op && BEGUN.fetch_add(1, Relaxed) + 1 >= order.first);
        let outer = NOW.replace(Now { op, stores: 0, meant });
        Scope { outer: (outer.op, outer.stores, outer.meant) }
    }

    impl Drop for Scope {
        fn drop(&mut self) {
            let (op, stores, meant) = self.outer;
            let ended = NOW.replace(Now { op, stores, meant });
            if ended.meant && !std::thread::panicking() {
                let longest = LONGEST.fetch_max(ended.stores, Relaxed).max(ended.stores);
                if UNHARMED.fetch_add(1, Relaxed) + 1 == UNREACHED {
                    eprintln!("LB_DIE_AT not reached: the longest {} had {longest} stores", ended.op.name());
                }
            }
        }
    }

    /// A store is done: dies if it is the one.
    #[inline]
    pub fn store() {
        let mut now = NOW.get();
        now.stores += 1;
        NOW.set(now);
        if now.meant && order().is_some_and(|order| order.store == now.stores) {
            die();
        }
        let left = LEFT.get();
        if left != 0 && SPARED.get() != Some(now.op) {
            LEFT.set(left - 1);
            if left == 1 {
                STRUCK.set(Some(now.op));
                std::panic::resume_unwind(Box::new("failpoint")); // A panic without its message: there are thousands.
            }
        }
    }

    #[cold]
    fn die() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        // Not come to: a signal to oneself strikes before the call returns.
        std::process::abort();
    }

    /// The `stores`-th store from now on this thread panics after it is done (1: the very next one).
    pub fn arm(stores: u64) {
        arm_but(stores, None);
    }

    /// As [`arm`]; stores of operation `spared` do not count (most stores of a burst are its flip's).
    pub fn arm_but(stores: u64, spared: Option<Op>) {
        LEFT.set(stores);
        SPARED.set(spared);
        STRUCK.set(None);
    }

    /// Takes the failpoint back. `true`: it had not struck yet.
    pub fn disarm() -> bool {
        NOW.set(OUTSIDE);
        LEFT.replace(0) != 0
    }

    /// What was under way when [`arm`]'s panic struck last.
    #[must_use]
    pub fn struck() -> Option<Op> {
        STRUCK.get()
    }

    /// Puts a bug into this thread's work; `None`: takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug.map_or(0, |bug| bug as u8));
    }

    /// Is it there?
    #[inline]
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == bug as u8
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn orders_are_read() {
            let order = |op, store, first| Some(Order { op, store, first });
            assert_eq!(Order::parse("create:3"), order(Op::Create, 3, 1));
            assert_eq!(Order::parse("flip:12@50"), order(Op::Flip, 12, 50));
            for wrong in ["", "create", "create:", "create:x", "publish:3", "create:3@", "create:3@x"] {
                assert_eq!(Order::parse(wrong), None, "{wrong}");
            }
        }

        #[test]
        fn an_operation_within_another_counts_for_itself() {
            let outer = enter(Op::Create);
            store();
            {
                let _inner = enter(Op::Displace);
                store();
                store();
                assert_eq!((NOW.get().op, NOW.get().stores), (Op::Displace, 2));
            }
            store();
            assert_eq!((NOW.get().op, NOW.get().stores), (Op::Create, 2));
            drop(outer);
            arm(2);
            store();
            let _scope = enter(Op::Close);
            assert!(std::panic::catch_unwind(store).is_err() && struck() == Some(Op::Close) && !disarm());
        }
    }
}
