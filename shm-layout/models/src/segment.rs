//! Mappings as plain memory: every view is fresh rows of its own, all zero.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::error::SegmentError;

/// What may be a row.
pub trait Row: Default + Send + Sync + 'static {}
impl<T: Default + Send + Sync + 'static> Row for T {}

/// Rows, shared by the clones.
#[derive(Debug)]
pub struct Rows<T>(Arc<[T]>);

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Row> Rows<T> {
    /// `count` rows.
    #[must_use]
    pub fn fresh(count: usize) -> Self {
        Self((0..count).map(|_| T::default()).collect())
    }
}

impl<T> Deref for Rows<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// One row.
#[derive(Debug)]
pub struct One<T>(Arc<T>);

impl<T> Clone for One<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Row> Default for One<T> {
    fn default() -> Self {
        Self(Arc::new(T::default()))
    }
}

impl<T> Deref for One<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Where views are made.
#[derive(Debug)]
pub struct Mapping;

impl Mapping {
    /// Memory for as many views as are asked for.
    ///
    /// # Errors
    /// None.
    pub fn anonymous(_bytes: u64, _huge: bool) -> Result<Arc<Self>, SegmentError> {
        Ok(Arc::new(Self))
    }

    /// # Errors
    /// There are no files here.
    pub fn open(path: &Path, _writable: bool) -> Result<Arc<Self>, SegmentError> {
        Err(SegmentError::Locked { path: path.into() })
    }

    /// Fresh rows.
    ///
    /// # Errors
    /// None.
    pub fn rows<T: Row>(self: &Arc<Self>, _offset: u64, count: u64) -> Result<Rows<T>, SegmentError> {
        let count = usize::try_from(count).map_err(|_| SegmentError::TooLarge { bytes: count })?;
        Ok(Rows::fresh(count))
    }

    /// A fresh row.
    ///
    /// # Errors
    /// None.
    pub fn one<T: Row>(self: &Arc<Self>, _offset: u64) -> Result<One<T>, SegmentError> {
        Ok(One::default())
    }
}

/// Offsets mean nothing here.
#[derive(Clone, Copy, Debug)]
pub struct Cursor(u64);

impl Cursor {
    /// See the shipped one.
    #[must_use]
    pub const fn after_header() -> Self {
        Self(0)
    }
    /// See the shipped one.
    pub const fn take<T>(&mut self, count: u64) -> u64 {
        let at = self.0;
        self.0 += count;
        at
    }
    /// See the shipped one.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}
