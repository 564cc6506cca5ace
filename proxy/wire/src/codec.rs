//! Bytes forward only: what a field takes is gone, what is left over is an error.

use outrider_model::{AppId, MacAddr};

use crate::{Kind, WireError, WireIp, limits::MAX_MESSAGE};

/// Order of the bytes of a number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ByteOrder {
    /// Network order: everything, unless said otherwise.
    #[default]
    Big,
    /// The real data path's host order, where it forgets to convert.
    Little,
}

/// Reads fields from the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    order: ByteOrder,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` in network order.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_order(bytes, ByteOrder::Big)
    }

    /// Reads `bytes` in `order`.
    #[must_use]
    pub fn with_order(bytes: &'a [u8], order: ByteOrder) -> Self {
        Self { rest: bytes, order }
    }

    /// Takes a fixed-size field.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer bytes are left; so for all fields below.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes a byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes 16 bits.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, WireError> {
        let bytes = self.array()?;
        Ok(match self.order {
            ByteOrder::Big => u16::from_be_bytes(bytes),
            ByteOrder::Little => u16::from_le_bytes(bytes),
        })
    }

    /// Takes 32 bits.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.array()?;
        Ok(match self.order {
            ByteOrder::Big => u32::from_be_bytes(bytes),
            ByteOrder::Little => u32::from_le_bytes(bytes),
        })
    }

    /// Takes 64 bits.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        let bytes = self.array()?;
        Ok(match self.order {
            ByteOrder::Big => u64::from_be_bytes(bytes),
            ByteOrder::Little => u64::from_le_bytes(bytes),
        })
    }

    /// Takes a MAC address.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn mac(&mut self) -> Result<MacAddr, WireError> {
        self.array().map(MacAddr)
    }

    /// Takes a 16-byte address field.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn ip(&mut self) -> Result<WireIp, WireError> {
        self.array().map(WireIp)
    }

    /// Takes a 16-bit application number.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn app(&mut self) -> Result<AppId, WireError> {
        self.u16().map(|id| AppId(u32::from(id)))
    }

    /// Passes over bytes that mean nothing.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn skip(&mut self, count: usize) -> Result<(), WireError> {
        self.bytes(count).map(|_meaningless| ())
    }

    /// Refuses bytes that are left over.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

/// Appends fields in network order behind a header whose length is filled in at the end.
#[derive(Clone, Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message.
    #[must_use]
    pub fn new(kind: Kind, more: bool) -> Self {
        Self(vec![kind.0, u8::from(more), 0, 0])
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Appends 16 bits.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends 32 bits.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends 64 bits.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends a 16-bit application number; one that does not fit reads as unidentified (0xffff).
    pub fn app(&mut self, app: AppId) {
        self.u16(u16::try_from(app.0).unwrap_or(u16::MAX));
    }

    /// Appends `bytes` and zeros up to `size`; `size` must not be less.
    pub fn padded(&mut self, bytes: &[u8], size: usize) {
        self.bytes(bytes);
        self.zeros(size.saturating_sub(bytes.len()));
    }

    /// Appends zeros, for padding and what is reserved.
    pub fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len().saturating_add(count), 0);
    }

    /// Appends the number of entries of a list, 16 bits.
    ///
    /// # Errors
    /// [`WireError::TooMany`] above `cap`.
    pub fn count(&mut self, what: &'static str, count: usize, cap: usize) -> Result<(), WireError> {
        let too_many = WireError::TooMany { what, count, cap };
        let wire = u16::try_from(count)
            .ok()
            .filter(|_| count <= cap)
            .ok_or(too_many)?;
        self.u16(wire);
        Ok(())
    }

    /// Fills in the length.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_MESSAGE`].
    pub fn finish(mut self) -> Result<Vec<u8>, WireError> {
        let total = self.0.len();
        let length = u16::try_from(total).ok().filter(|_| total <= MAX_MESSAGE);
        let length = length.ok_or(WireError::TooLong(total))?;
        if let Some(slot) = self.0.get_mut(2..4) {
            slot.copy_from_slice(&length.to_be_bytes());
        }
        Ok(self.0)
    }
}
