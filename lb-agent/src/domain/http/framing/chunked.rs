//! A body in chunks (RFC 9112, section 7.1), read as the HTTP library reads it.

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    place: Place,
    /// Bytes of the chunk that are to come.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    /// White space behind it.
    Space,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// At the beginning of a line behind the last chunk.
    LastReturn,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
}

/// What has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// It is over.
    End,
    /// The library refuses it.
    Broken,
    /// Among trailers, where the library would take it for the end of a line. `at` is its place.
    BareLineFeed,
}

impl Chunked {
    /// Goes on from `at`, by one byte or by all that there is of a chunk.
    pub(super) fn step(&mut self, bytes: &[u8], at: &mut usize) -> Step {
        if let Place::Data = self.place {
            let here = (bytes.len() - *at) as u64;
            let passed = here.min(self.left);
            *at += passed as usize;
            self.left -= passed;
            if self.left == 0 {
                self.place = Place::DataReturn;
            }
            return Step::More;
        }
        let byte = bytes[*at];
        let next = match (self.place, byte) {
            (Place::Start | Place::Size, byte) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                let size = self.left.checked_mul(16);
                match size.and_then(|size| size.checked_add(digit.into())) {
                    Some(size) => self.left = size,
                    None => return Step::Broken,
                }
                Place::Size
            }
            (Place::Size | Place::Space, b' ' | b'\t') => Place::Space,
            (Place::Size | Place::Space, b';') => Place::Extension,
            (Place::Size | Place::Space | Place::Extension, b'\r') => Place::SizeLineFeed,
            (Place::Extension, byte) if byte != b'\n' => Place::Extension,
            (Place::SizeLineFeed, b'\n') if self.left == 0 => Place::LastReturn,
            (Place::SizeLineFeed, b'\n') => Place::Data,
            (Place::DataReturn, b'\r') => Place::DataLineFeed,
            (Place::DataLineFeed, b'\n') => Place::Start,
            (Place::LastReturn, b'\r') => Place::LastLineFeed,
            (Place::LastReturn | Place::Trailer, b'\n') => return Step::BareLineFeed,
            (Place::Trailer, b'\r') => Place::TrailerLineFeed,
            (Place::LastReturn | Place::Trailer, _) => Place::Trailer,
            (Place::TrailerLineFeed, b'\n') => Place::LastReturn,
            (Place::LastLineFeed, b'\n') => {
                *at += 1;
                return Step::End;
            }
            _ => return Step::Broken,
        };
        self.place = next;
        *at += 1;
        Step::More
    }
}
