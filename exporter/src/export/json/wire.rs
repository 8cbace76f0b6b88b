//! The bytes of a protobuf message in, its fields one by one out (protobuf encoding guide).

use super::Odd;

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

/// A field's value, by its wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
}

/// Which fields of a message came.
#[derive(Debug, Default)]
pub(super) struct Seen(u32);

const INVALID: Odd = Odd::Invalid("the bytes are no message of protobuf");

// === impl Wire

impl<'a> Wire<'a> {
    /// The next field's number and value; `None` at the end.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Odd> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| INVALID)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(self.bytes()?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups, which OTLP never had: prost knows how to leave them out.
            3 => return Err(Odd::Order),
            _ => return Err(INVALID),
        };
        Ok(Some((number, value)))
    }

    /// The bytes of the next field, where it is number `number` (below 16) with bytes again.
    #[inline(always)]
    pub(super) fn again(&mut self, number: u8) -> Result<Option<&'a [u8]>, Odd> {
        match self.0 {
            [tag, rest @ ..] if *tag == number << 3 | 2 => {
                self.0 = rest;
                self.bytes().map(Some)
            }
            _ => Ok(None),
        }
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<&'a [u8], Odd> {
        let len = self.varint()?;
        let (bytes, rest) = usize::try_from(len).ok().and_then(|len| self.0.split_at_checked(len)).ok_or(INVALID)?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Odd> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(INVALID)?;
        self.0 = rest;
        Ok(*bytes)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Odd> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Ok((*byte).into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Odd> {
        let mut value = 0;
        for (i, byte) in self.0.iter().enumerate().take(10) {
            if i == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(INVALID)
    }
}

// === impl Seen

impl Seen {
    /// Notes that field `number` came. It must not have come before.
    #[inline(always)]
    pub(super) fn first(&mut self, number: u32) -> Result<(), Odd> {
        let bit = 1u32.checked_shl(number).ok_or(Odd::Order)?;
        if self.0 & bit != 0 {
            return Err(Odd::Order);
        }
        self.0 |= bit;
        Ok(())
    }

    /// Whether field `number` came.
    pub(super) fn has(&self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_are_read_and_longer_ones_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            assert_eq!(Wire(&bytes).varint(), Ok(value));
            assert_eq!(Wire(&bytes[..bytes.len() - 1]).varint(), Err(INVALID));
        }
        assert_eq!(Wire(&[0xff; 10]).varint(), Err(INVALID));
        assert_eq!(Wire(&[0x80; 20]).varint(), Err(INVALID));
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        assert_eq!(Wire(&[0x0a, 5, 1]).next(), Err(INVALID));
        assert_eq!(Wire(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).next(), Err(INVALID));
        assert_eq!(Wire(&[0x09, 1, 2]).next(), Err(INVALID));
    }
}
