//! How long the frames of HTTP/3 are, seen as their bytes come in.
//!
//! The HTTP/3 library gathers every frame but DATA until it is whole, and trusts the length that the client wrote. So the
//! lengths are read here first, on the way from QUIC to the library: what is longer than any head may be goes no further.
//! Pure: bytes in, a verdict out.

/// The only type of frame whose payload is handed on as it comes.
const DATA: u64 = 0x00;

/// A unidirectional stream with frames of its own; the other types carry something else, and nobody gathers it.
const CONTROL: u64 = 0x00;

/// Follows the frames of one stream.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// The longest frame that is gathered.
    most: u64,
    number: Number,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The type of a unidirectional stream is awaited.
    Stream,
    Type,
    Length {
        kind: u64,
    },
    Payload {
        is_data: bool,
        left: u64,
    },
    /// No frames.
    Other,
}

/// A variable-length integer (RFC 9000, section 16), as far as it has come.
#[derive(Debug, Default)]
struct Number {
    value: u64,
    missing: u8,
}

/// A frame that is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame is longer than a head may be")]
pub struct TooLong;

impl Framing {
    /// Of a stream that carries a request.
    pub fn of_request(most: u64) -> Self {
        Self { state: State::Type, most, number: Number::default() }
    }

    /// Of a stream in one direction.
    pub fn of_one_way(most: u64) -> Self {
        Self { state: State::Stream, most, number: Number::default() }
    }

    /// Goes on through `bytes`; says how many of them are payload of DATA.
    ///
    /// # Errors
    /// When a frame begins that is longer than it may be.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<u64, TooLong> {
        let mut data = 0;
        while !bytes.is_empty() {
            match self.state {
                State::Other => break,
                State::Payload { is_data, left } => {
                    let passed = left.min(bytes.len() as u64);
                    bytes = &bytes[usize::try_from(passed).unwrap_or(bytes.len())..];
                    data += if is_data { passed } else { 0 };
                    self.state = match left - passed {
                        0 => State::Type,
                        left => State::Payload { is_data, left },
                    };
                }
                State::Stream | State::Type | State::Length { .. } => {
                    let (byte, rest) = (bytes[0], &bytes[1..]);
                    bytes = rest;
                    if let Some(number) = self.number.push(byte) {
                        self.state = self.next(number)?;
                    }
                }
            }
        }
        Ok(data)
    }

    /// Whether the stream may end here.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Type | State::Other) && self.number.missing == 0
    }

    fn next(&self, number: u64) -> Result<State, TooLong> {
        match self.state {
            State::Stream if number == CONTROL => Ok(State::Type),
            State::Stream => Ok(State::Other),
            State::Type => Ok(State::Length { kind: number }),
            State::Length { kind } if kind != DATA && number > self.most => Err(TooLong),
            State::Length { .. } if number == 0 => Ok(State::Type),
            State::Length { kind } => Ok(State::Payload { is_data: kind == DATA, left: number }),
            state @ (State::Payload { .. } | State::Other) => Ok(state),
        }
    }
}

impl Number {
    /// The number, when its last byte came.
    fn push(&mut self, byte: u8) -> Option<u64> {
        if self.missing == 0 {
            self.missing = 1 << (byte >> 6);
            self.value = u64::from(byte & 0x3f);
        } else {
            self.value = self.value << 8 | u64::from(byte);
        }
        self.missing -= 1;
        (self.missing == 0).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u64 = 100;

    #[test]
    fn data_may_be_as_long_as_it_likes_and_is_counted() {
        // HEADERS of 2 bytes, DATA of 16,384 bytes, of which 3 are here.
        let mut framing = Framing::of_request(MOST);
        assert_eq!(framing.pass(&[1, 2, b'h', b'h', 0, 0x80, 0, 0x40, 0, 1, 2, 3]), Ok(3));
        assert_eq!(framing.pass(&[0; 16_381]), Ok(16_381));
        assert_eq!(framing.pass(&[1, 0, 0, 1, 9]), Ok(1), "empty trailers, then DATA of one byte");
    }

    #[test]
    fn a_long_head_is_refused_before_it_comes() {
        assert_eq!(Framing::of_request(MOST).pass(&[1, 0x40, 101]), Err(TooLong));
        assert_eq!(Framing::of_request(MOST).pass(&[1, 0x40, 100]), Ok(0));
        // Of an unknown type too, since it is gathered as well.
        assert_eq!(Framing::of_request(MOST).pass(&[0x21, 0xc0, 0, 0, 1, 0, 0, 0, 0]), Err(TooLong));
    }

    #[test]
    fn a_stream_ends_between_two_frames_or_it_was_cut_off() {
        for (bytes, whole) in [
            (&[][..], true),
            (&[1, 1, 9], true),
            (&[1, 1, 9, 0, 0], true),
            (&[1], false),
            (&[0x40], false),
            (&[1, 1, 9, 0, 5], false),
            (&[1, 1, 9, 0, 5, 1], false),
        ] {
            let mut framing = Framing::of_request(MOST);
            framing.pass(bytes).unwrap();
            assert_eq!(framing.is_between_frames(), whole, "{bytes:?}");
        }
    }

    #[test]
    fn of_streams_in_one_direction_only_control_streams_have_frames() {
        assert_eq!(Framing::of_one_way(MOST).pass(&[0, 4, 0x40, 101]), Err(TooLong));
        assert_eq!(Framing::of_one_way(MOST).pass(&[0, 4, 0]), Ok(0));
        for kind in [2, 3] {
            assert_eq!(Framing::of_one_way(MOST).pass(&[kind, 4, 0x40, 101]), Ok(0));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cuts in proptest::collection::vec(1_usize..9, 1..40),
        ) {
            let whole = Framing::of_request(MOST).pass(&bytes);
            let mut framing = Framing::of_request(MOST);
            let (mut rest, mut data) = (&bytes[..], Ok(0));
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || data.is_err() {
                    break;
                }
                let (piece, others) = rest.split_at((*cut).min(rest.len()));
                rest = others;
                data = data.and_then(|before| framing.pass(piece).map(|more| before + more));
            }
            prop_assert_eq!(whole, data);
        }
    }
}
