//! Every field of every row, once to give it a value of its own, once to find that value again.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use shm_layout::published::AddressRow;

/// What is done to each field.
#[derive(Debug, Default)]
pub struct Visitor {
    /// Compare, else store.
    pub compare: bool,
    /// Fields so far.
    fields: u64,
    /// What differs.
    pub differences: Vec<String>,
}

impl Visitor {
    pub fn new(compare: bool) -> Self {
        Self { compare, ..Self::default() }
    }

    /// Fields visited.
    pub fn fields(&self) -> u64 {
        self.fields
    }

    /// The next field: its value is made of its number, each byte of it.
    fn next(&mut self) -> u64 {
        self.fields += 1;
        (self.fields ^ 0x5a5a).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn differ(&mut self, name: &str, found: impl Debug, expected: impl Debug) {
        self.differences.push(format!("{name} is {found:x?}, written was {expected:x?}"));
    }
}

/// A field, or an array of them.
pub trait Field {
    fn visit(&self, name: &str, visitor: &mut Visitor);
}

macro_rules! field {
    ($($atomic:ty, $value:ty);+) => {$(
        impl Field for $atomic {
            fn visit(&self, name: &str, visitor: &mut Visitor) {
                let value = visitor.next() as $value;
                if !visitor.compare {
                    self.store(value, Relaxed);
                } else if self.load(Relaxed) != value {
                    visitor.differ(name, self.load(Relaxed), value);
                }
            }
        }
    )+};
}
field!(AtomicU8, u8; AtomicU16, u16; AtomicU32, u32; AtomicU64, u64);

impl<T: Field, const N: usize> Field for [T; N] {
    fn visit(&self, name: &str, visitor: &mut Visitor) {
        for (i, field) in self.iter().enumerate() {
            field.visit(&format!("{name}[{i}]"), visitor);
        }
    }
}

impl Field for AddressRow {
    fn visit(&self, name: &str, visitor: &mut Visitor) {
        self.ip.visit(&format!("{name}.ip"), visitor);
        self.prefix.visit(&format!("{name}.prefix"), visitor);
    }
}

/// Visits the fields of a row by name.
#[macro_export]
macro_rules! fields {
    ($visitor:expr, $type:ident, $row:expr; $($field:ident),+ $(,)?) => {{
        let row: &$type = &$row;
        $( $crate::visit::Field::visit(&row.$field, concat!(stringify!($type), ".", stringify!($field)), $visitor); )+
    }};
}
