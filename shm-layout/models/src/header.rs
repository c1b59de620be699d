//! Headers are not modelled: they are written before anybody can map the segment.

use std::sync::Arc;

use crate::error::SegmentError;
use crate::segment::Mapping;

/// See the shipped one.
pub const PARAMS: usize = 16;

/// See the shipped one.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Next hops.
    Neighbours,
    /// Health of the real servers.
    Board,
    /// Servers of prefixes.
    Persistence,
}

/// See the shipped one.
#[must_use]
pub const fn layout_version() -> u32 {
    crate::limits::LAYOUT_VERSION
}

/// Nothing.
///
/// # Errors
/// None.
pub fn write(_map: &Arc<Mapping>, _kind: Kind, _params: &[u64; PARAMS]) -> Result<(), SegmentError> {
    Ok(())
}

/// Nothing.
///
/// # Errors
/// None.
pub fn check(_map: &Arc<Mapping>, _kind: Kind) -> Result<[u64; PARAMS], SegmentError> {
    Ok([0; PARAMS])
}
