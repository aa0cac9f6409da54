//! What a script has packed: MessagePack, as far as scripts write it, read in place.

use trunkline_core::Result;

use crate::error::unexpected;

/// The rest of it.
pub(crate) struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many things follow that belong together.
    pub(crate) fn list(&mut self) -> Result<usize> {
        match self.tag()? {
            tag @ 0x90..=0x9f => Ok(usize::from(tag & 0x0f)),
            0xdc => self.size(2),
            0xdd => self.size(4),
            _ => Err(wrong()),
        }
    }

    /// A number that is not negative.
    pub(crate) fn number(&mut self) -> Result<u64> {
        let bytes = match self.tag()? {
            tag @ 0..=0x7f => return Ok(u64::from(tag)),
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xce | 0xd2 => 4,
            0xcf | 0xd3 => 8,
            _ => return Err(wrong()),
        };
        self.whole(bytes)
    }

    /// A text, which may be any bytes.
    pub(crate) fn text(&mut self) -> Result<&'a [u8]> {
        let length = match self.tag()? {
            tag @ 0xa0..=0xbf => usize::from(tag & 0x1f),
            0xc4 | 0xd9 => self.size(1)?,
            0xc5 | 0xda => self.size(2)?,
            0xc6 | 0xdb => self.size(4)?,
            _ => return Err(wrong()),
        };
        self.take(length)
    }

    fn tag(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().ok_or_else(wrong)
    }

    fn size(&mut self, bytes: usize) -> Result<usize> {
        usize::try_from(self.whole(bytes)?).map_err(|_| wrong())
    }

    fn whole(&mut self, bytes: usize) -> Result<u64> {
        let digits = self.take(bytes)?.iter();
        Ok(digits.fold(0, |whole, digit| whole << 8 | u64::from(*digit)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(wrong)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn wrong() -> trunkline_core::Error {
    unexpected("something packed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_size_is_read() {
        for length in [0_usize, 31, 32, 255, 256, 65_535, 65_536] {
            let size = u32::try_from(length).unwrap().to_be_bytes();
            let start: Vec<u8> = match length {
                0..=31 => vec![0xa0 | size[3]],
                32..=255 => vec![0xd9, size[3]],
                256..=65_535 => vec![0xda, size[2], size[3]],
                _ => [&[0xdb], size.as_slice()].concat(),
            };
            let bytes = [start, vec![7; length], vec![0x93, 0xcd, 1, 2, 5]].concat();
            let mut packed = Packed::new(&bytes);
            assert_eq!(packed.text().unwrap(), vec![7; length]);
            assert_eq!(packed.list().unwrap(), 3);
            assert_eq!(packed.number().unwrap(), 258);
            assert_eq!(packed.number().unwrap(), 5);
            assert!(packed.number().is_err());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for read in [
                |packed: &mut Packed<'_>| packed.list().is_ok(),
                |packed: &mut Packed<'_>| packed.number().is_ok(),
                |packed: &mut Packed<'_>| packed.text().is_ok(),
            ] {
                let mut packed = Packed::new(&bytes);
                while read(&mut packed) {}
            }
        }
    }
}
