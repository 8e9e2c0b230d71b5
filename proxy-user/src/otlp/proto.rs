//! Protocol Buffers, as far as OTLP needs them: written, field by field.
//! <https://protobuf.dev/programming-guides/encoding/>

/// A message that is being written.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED_32: u32 = 5;

impl Message {
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message within this one.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Also of enumerations. Negative numbers take ten bytes.
    pub fn number(&mut self, field: u32, number: i64) {
        self.key(field, VARINT);
        self.varint(number.cast_unsigned());
    }

    pub fn fixed_64(&mut self, field: u32, number: u64) {
        self.key(field, FIXED_64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub fn fixed_32(&mut self, field: u32, number: u32) {
        self.key(field, FIXED_32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Numbers one after the other, in one field.
    pub fn packed_fixed_64(&mut self, field: u32, numbers: impl ExactSizeIterator<Item = u64>) {
        self.key(field, LENGTH);
        self.varint(numbers.len() as u64 * 8);
        for number in numbers {
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub fn double(&mut self, field: u32, number: f64) {
        self.fixed_64(field, number.to_bits());
    }

    pub fn packed_doubles(&mut self, field: u32, numbers: impl ExactSizeIterator<Item = f64>) {
        self.packed_fixed_64(field, numbers.map(f64::to_bits));
    }

    /// A message that was written for itself.
    pub fn append(&mut self, fields: &Self) {
        self.0.extend_from_slice(&fields.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_as_the_encoding_guide_shows() {
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.number(1, 150));
        message.fixed_32(4, 1);
        message.fixed_64(5, 2);
        message.number(6, -1);
        message.packed_fixed_64(7, [1, 2].into_iter());
        message.double(8, 1.0);
        let expected = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g'],
            &[0x1a, 0x03, 0x08, 0x96, 0x01],
            &[0x25, 1, 0, 0, 0],
            &[0x29, 2, 0, 0, 0, 0, 0, 0, 0],
            &[0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x3a, 16, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[0x41, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
        ];
        assert_eq!(message.into_bytes(), expected.concat());
    }
}
