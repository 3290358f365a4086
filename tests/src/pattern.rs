//! Bytes that look random and depend on nothing but their offset, so that whoever receives them
//! can tell a lost, doubled or altered byte without having kept what was sent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};

/// Bytes in one chunk of a [`PatternBody`].
pub const CHUNK: usize = 64 * 1024;

/// Eight bytes of the pattern, little-endian: the output function of SplitMix64 over the index.
fn word(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The byte at `offset`.
pub fn pattern(offset: u64) -> u8 {
    word(offset / 8).to_le_bytes()[(offset % 8) as usize]
}

/// The bytes from `offset` on.
pub fn fill(offset: u64, buffer: &mut [u8]) {
    let head = ((8 - offset % 8) % 8).min(buffer.len() as u64) as usize;
    let (head, body) = buffer.split_at_mut(head);
    for (at, byte) in (offset..).zip(head.iter_mut()) {
        *byte = pattern(at);
    }
    let first = (offset + head.len() as u64) / 8;
    for (index, chunk) in (first..).zip(body.chunks_mut(8)) {
        chunk.copy_from_slice(&word(index).to_le_bytes()[..chunk.len()]);
    }
}

/// Compares `data` with the pattern from `offset` on. The error is the offset of the first
/// difference.
pub fn verify(offset: u64, data: &[u8]) -> Result<(), u64> {
    let mut expected = vec![0; data.len()];
    fill(offset, &mut expected);
    if expected == data {
        return Ok(());
    }
    let differing = expected
        .iter()
        .zip(data)
        .take_while(|(a, b)| a == b)
        .count();
    Err(offset + differing as u64)
}

/// Lower-case hexadecimal SHA-256 of the first `length` bytes of the pattern.
pub fn sha256(length: u64) -> String {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let size = (length - offset).min(CHUNK as u64) as usize;
        fill(offset, &mut buffer[..size]);
        digest.update(&buffer[..size]);
        offset += size as u64;
    }
    hex(&digest.finalize())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first bytes of the pattern as an HTTP body, in chunks of [`CHUNK`].
#[derive(Debug)]
pub struct PatternBody {
    offset: u64,
    length: u64,
}

impl PatternBody {
    /// A body of `length` bytes.
    pub fn new(length: u64) -> Self {
        Self { offset: 0, length }
    }
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = (self.length - self.offset).min(CHUNK as u64) as usize;
        if size == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; size];
        fill(self.offset, &mut chunk);
        self.offset += size as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_agrees_with_pattern_at_every_alignment() {
        for offset in 0..20 {
            for length in 0..40 {
                let mut buffer = vec![0; length];
                fill(offset, &mut buffer);
                let expected: Vec<u8> = (offset..).take(length).map(pattern).collect();
                assert_eq!(buffer, expected, "{length} bytes from {offset}");
            }
        }
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let mut data = vec![0; 1000];
        fill(77, &mut data);
        assert_eq!(verify(77, &data), Ok(()));
        assert!(verify(78, &data).is_err());
        data[500] ^= 1;
        data[900] ^= 1;
        assert_eq!(verify(77, &data), Err(577));
    }

    /// Chunking does not change the digest.
    #[test]
    fn digest_is_that_of_the_bytes() {
        let length = CHUNK + 5;
        let mut data = vec![0; length];
        fill(0, &mut data);
        assert_eq!(sha256(length as u64), hex(&Sha256::digest(&data)));
    }
}
