//! Reading bytes that a peer sent: forward only, never past the end.

/// Reads fields off the front of a slice. Where less is left than a field takes, it is `None`; nobody
/// reads on after that, so what was read before it is not given back.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    #[must_use]
    #[inline]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next N bytes, by value.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// A byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// 16 bits, the high byte first.
    #[inline]
    pub fn be16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// 24 bits, the high byte first.
    #[inline]
    pub fn be24(&mut self) -> Option<u32> {
        self.array()
            .map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// 32 bits, the high byte first.
    #[inline]
    pub fn be32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// 16 bits, the low byte first.
    #[inline]
    pub fn le16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// 24 bits, the low byte first.
    #[inline]
    pub fn le24(&mut self) -> Option<u32> {
        self.array()
            .map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// A string that ends in a zero byte, without the zero.
    #[inline]
    pub fn until_nul(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(end)?;
        self.u8()?;
        Some(text)
    }

    /// A block behind an 8-bit length.
    #[inline]
    pub fn block8(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into()).map(Reader)
    }

    /// A block behind a 16-bit length, the high byte first.
    #[inline]
    pub fn block16(&mut self) -> Option<Self> {
        let length = self.be16()?;
        self.take(length.into()).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_in_their_order() {
        let bytes: Vec<u8> = (1..=17).collect();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Some(0x01));
        assert_eq!(reader.be16(), Some(0x0203));
        assert_eq!(reader.be24(), Some(0x04_0506));
        assert_eq!(reader.be32(), Some(0x0708_090a));
        assert_eq!(reader.le16(), Some(0x0c0b));
        assert_eq!(reader.le24(), Some(0x0f_0e0d));
        assert_eq!((reader.array(), reader.take(1)), (Some([16]), Some(&[17][..])));
        assert_eq!((reader.is_empty(), reader.take(0)), (true, Some(&[][..])));
    }

    #[test]
    fn reads_blocks_and_strings() {
        let mut reader = Reader::new(&[0, 1, 9, 0, 1, 8, b'a', 0]);
        assert_eq!(reader.block16().map(Reader::rest), Some(&[9][..]));
        assert_eq!(reader.block8().map(Reader::rest), Some(&[][..]));
        assert_eq!(reader.block8().map(Reader::rest), Some(&[8][..]));
        assert_eq!((reader.rest(), reader.is_empty()), (&b"a\0"[..], false));
        assert_eq!((reader.until_nul(), reader.until_nul()), (Some(&b"a"[..]), None));
    }

    #[test]
    fn refuses_to_read_past_the_end() {
        let short = |count| Reader::new(b"\xff\xff\xff\xff".get(..count).unwrap());
        assert_eq!(short(0).u8(), None);
        assert_eq!((short(1).be16(), short(1).le16()), (None, None));
        assert_eq!((short(2).be24(), short(2).le24()), (None, None));
        assert_eq!((short(3).be32(), short(3).array::<4>()), (None, None));
        assert_eq!((short(4).take(5), short(4).take(usize::MAX)), (None, None));
        assert!(short(4).block8().is_none() && short(4).block16().is_none());
        assert_eq!(Reader::new(b"abc").until_nul(), None);
        assert_eq!(Reader::new(b"abc\0d").until_nul(), Some(&b"abc"[..]));
    }
}
