//! Short pieces are written as one: a system call for one buffer takes less of the kernel's time than
//! one for several, by more than copying a kilobyte does.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// Bytes that are copied at most.
const SHORT: usize = 2048;

/// Writes of these slices as much as the stream takes.
pub(super) fn poll_write<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = slices {
        return stream.poll_write(context, only);
    }
    let length: usize = slices.iter().map(|slice| slice.len()).sum();
    if length > SHORT {
        return stream.poll_write_vectored(context, slices);
    }
    let mut buffer = [0; SHORT];
    let mut rest = &mut buffer[..];
    for slice in slices {
        let (place, behind) = rest.split_at_mut(slice.len());
        place.copy_from_slice(slice);
        rest = behind;
    }
    stream.poll_write(context, &buffer[..length])
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn all_of_it_in_its_order() {
        for lengths in [
            &[][..],
            &[0],
            &[3],
            &[3, 0, 5],
            &[SHORT, 0],
            &[SHORT, 1],
            &[1, 1, SHORT - 2],
            &[SHORT, SHORT],
        ] {
            let parts: Vec<Vec<u8>> = (1..)
                .zip(lengths)
                .map(|(byte, length)| vec![byte; *length])
                .collect();
            let whole = parts.concat();
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            let write =
                std::future::poll_fn(|context| poll_write(Pin::new(&mut near), context, &slices));
            let written = write.await.unwrap();
            drop(near);
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            assert_eq!(written, read.len(), "{lengths:?}");
            assert!(whole.starts_with(&read), "{lengths:?}");
            assert!(
                whole.len() <= read.len() || whole.len() > SHORT,
                "{lengths:?}"
            );
        }
    }
}
