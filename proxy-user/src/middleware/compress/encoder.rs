//! Plain bytes in, compressed bytes out, piece by piece.
//!
//! Whenever the server pauses, what it has sent so far is flushed: events and slow pages arrive when they are sent, and a
//! fast body is compressed as a whole.

use std::io::{self, Write};

use bytes::Bytes;

use super::Coding;

/// A piece is handed on when it has this much.
pub const PIECE: usize = 16 << 10;

/// Fast enough to do on the way; the dearer levels are for what is compressed once and kept.
const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// How far back brotli and zstd look, as a power of two: what a response in flight costs in memory.
const WINDOW: u32 = 19;

pub struct Encoder {
    kind: Kind,
    /// Bytes came in since the last flush.
    dirty: bool,
}

enum Kind {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    /// # Errors
    /// When there is no memory for it.
    pub fn new(coding: Coding) -> io::Result<Self> {
        let kind = match coding {
            Coding::Gzip => {
                Kind::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => {
                let writer = brotli::CompressorWriter::new(Vec::new(), PIECE, BROTLI_LEVEL, WINDOW);
                Kind::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(WINDOW))?;
                Kind::Zstd(encoder)
            }
        };
        Ok(Self { kind, dirty: false })
    }

    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.dirty = true;
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.write_all(data),
            Kind::Brotli(encoder) => encoder.write_all(data),
            Kind::Zstd(encoder) => encoder.write_all(data),
        }
    }

    /// What is ready, if it is worth a piece.
    pub fn piece(&mut self) -> Option<Bytes> {
        let out = self.out();
        (out.len() >= PIECE).then(|| Bytes::from(std::mem::take(out)))
    }

    /// All that came in so far, if anything did since the last time.
    pub fn flush(&mut self) -> io::Result<Option<Bytes>> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(None);
        }
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.flush()?,
            Kind::Brotli(encoder) => encoder.flush()?,
            Kind::Zstd(encoder) => encoder.flush()?,
        }
        let out = std::mem::take(self.out());
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    /// The rest.
    pub fn finish(self) -> io::Result<Bytes> {
        let out = match self.kind {
            Kind::Gzip(encoder) => encoder.finish()?,
            Kind::Brotli(encoder) => encoder.into_inner(),
            Kind::Zstd(encoder) => encoder.finish()?,
        };
        Ok(Bytes::from(out))
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.get_mut(),
            Kind::Brotli(encoder) => encoder.get_mut(),
            Kind::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn plain(coding: Coding, packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // What was flushed must be readable before the end is there: read as far as it goes.
        let _ = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(packed, 4096).read_to_end(&mut out),
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(packed).and_then(|mut decoder| decoder.read_to_end(&mut out))
            }
        };
        out
    }

    #[test]
    fn what_is_flushed_can_be_read_and_the_whole_is_the_same() {
        let text: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8 ^ (n / 1000) as u8).collect();
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let mut encoder = Encoder::new(coding).unwrap();
            encoder.write(&text[..100]).unwrap();
            let mut packed = encoder.flush().unwrap().unwrap().to_vec();
            assert_eq!(plain(coding, &packed), &text[..100], "{coding:?}: flushed");
            assert_eq!(encoder.flush().unwrap(), None, "nothing new");
            for piece in text[100..].chunks(7000) {
                encoder.write(piece).unwrap();
                packed.extend(encoder.piece().into_iter().flatten());
            }
            packed.extend(encoder.finish().unwrap());
            assert!(plain(coding, &packed) == text, "{coding:?}");
        }
    }
}
