//! Fragments put together again: connection tracking does so and cuts anew, the programs never do.
//! What is compared is the datagram.

use std::collections::BTreeMap;

use lb_tests::model::sum;

/// What fragments of one datagram have in common: everything but length, offset and checksum.
type Datagram = Vec<u8>;

/// A fragment's place: offset, whether more follow, the bytes.
type Part = (usize, bool, Vec<u8>);

/// Replaces the fragments of a whole datagram by the datagram, where the last of them was; what is
/// not whole stays as it is.
pub(crate) fn reassemble(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts: BTreeMap<Datagram, Vec<Part>> = BTreeMap::new();
    let mut whole = Vec::new();
    for frame in frames {
        let Some((datagram, part)) = part(&frame) else {
            whole.push(frame);
            continue;
        };
        let known = parts.entry(datagram.clone()).or_default();
        known.push(part);
        if let Some(body) = join(known) {
            parts.remove(&datagram);
            whole.push(built(&datagram, &body));
        }
    }
    // As they were: incomplete.
    for (datagram, parts) in parts {
        for (offset, more, bytes) in parts {
            let mut frame = built(&datagram, &bytes);
            frame.extend(format!("fragment at {offset}, more {more}").into_bytes());
            whole.push(frame);
        }
    }
    whole
}

fn part(frame: &[u8]) -> Option<(Datagram, Part)> {
    match frame.get(12..14)? {
        [0x08, 0x00] if frame.len() >= 34 => {
            let header = usize::from(frame[14] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            let field = u16::from_be_bytes([frame[20], frame[21]]);
            let damaged = sum::error(frame.get(14..14 + header)?, 0) != 0;
            if field & 0x3fff == 0 || damaged {
                return None;
            }
            let mut datagram = frame.get(..14 + header)?.to_vec();
            datagram[20] &= 0x40;
            datagram[21] = 0;
            for at in [16, 17, 24, 25] {
                datagram[at] = 0;
            }
            let bytes = frame.get(14 + header..14 + total)?.to_vec();
            let offset = usize::from(field & 0x1fff) * 8;
            Some((datagram, (offset, field & 0x2000 != 0, bytes)))
        }
        // The fragment header is the only extension that is sent here.
        [0x86, 0xdd] if frame.len() >= 62 && frame[20] == 44 => {
            let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            let field = u16::from_be_bytes([frame[56], frame[57]]);
            let mut datagram = frame[..54].to_vec();
            datagram[20] = frame[54];
            datagram[18..20].fill(0);
            // Behind the header, so that datagrams are told apart.
            datagram.extend(&frame[58..62]);
            let bytes = frame.get(62..54 + length)?.to_vec();
            let offset = usize::from(field & 0xfff8);
            Some((datagram, (offset, field & 1 != 0, bytes)))
        }
        _ => None,
    }
}

/// The datagram's body, if nothing is missing.
fn join(parts: &[Part]) -> Option<Vec<u8>> {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|(offset, ..)| *offset);
    let mut body = Vec::new();
    for (offset, _, bytes) in &parts {
        if *offset != body.len() {
            return None;
        }
        body.extend(bytes);
    }
    parts
        .last()
        .is_some_and(|(_, more, _)| !more)
        .then_some(body)
}

fn built(datagram: &[u8], body: &[u8]) -> Vec<u8> {
    let v4 = datagram[12] == 0x08;
    let header = if v4 { datagram } else { &datagram[..54] };
    let mut frame = [header, body].concat();
    let (at, from) = if v4 { (16, 14) } else { (18, 54) };
    let length = (frame.len() - from) as u16;
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    if v4 {
        let sum = sum::with_error(&frame[14..header.len()], 0, 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}
