//! Where the values of headers are written that a request gets on its way.

use bytes::{Bytes, BytesMut};

/// Bytes of memory that are asked for at a time: for the values of several requests.
const PIECE: usize = 1024;

/// Memory that the values of several requests share: every request gets some, and an allocation for
/// each would cost more than to write them. A piece is there as long as one of its values is.
#[derive(Debug, Default)]
pub struct Texts(BytesMut);

impl Texts {
    /// Where to write: there is room for this many bytes at least, and for more at a price.
    pub fn room(&mut self, bytes: usize) -> &mut BytesMut {
        if self.0.capacity() - self.0.len() < bytes {
            self.0.reserve(bytes.max(PIECE));
        }
        &mut self.0
    }

    /// What has been written since this was last asked.
    pub fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_what_was_written() {
        let mut texts = Texts::default();
        let values: Vec<_> = (0..2000_usize)
            .map(|number| {
                let text = format!("{number}:").repeat(1 + number % 300);
                texts.room(20).extend_from_slice(text.as_bytes());
                (text, texts.take())
            })
            .collect();
        for (text, value) in &values {
            assert_eq!(text.as_bytes(), value);
        }
        assert!(texts.take().is_empty());
    }

    /// Values that are gone leave their memory to others.
    #[test]
    fn memory_is_used_again() {
        let mut texts = Texts::default();
        let mut places = std::collections::HashSet::new();
        for _ in 0..1000 {
            texts.room(100).extend_from_slice(&[b'x'; 100]);
            places.insert(texts.take().as_ptr());
        }
        assert!(places.len() <= PIECE / 100, "{}", places.len());
    }
}
