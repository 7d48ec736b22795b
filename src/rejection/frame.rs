//! The few WebSocket frames that a refusal needs: two to write, and headers to skip (RFC 6455 §5).

use super::CloseFrame;

const FIN_TEXT: u8 = 0x81;
const FIN_CLOSE: u8 = 0x88;

/// Appends a Close frame.
pub(super) fn write_close(wire: &mut Vec<u8>, close: &CloseFrame) {
    let payload = [&close.code().to_be_bytes(), close.reason().as_bytes()].concat();
    write_frame(wire, FIN_CLOSE, &payload);
}

/// Appends a text message in one frame.
pub(super) fn write_text(wire: &mut Vec<u8>, text: &str) {
    write_frame(wire, FIN_TEXT, text.as_bytes());
}

fn write_frame(wire: &mut Vec<u8>, first: u8, payload: &[u8]) {
    wire.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..=125), _) => wire.push(len),
        (_, Ok(len)) => {
            wire.push(126);
            wire.extend(len.to_be_bytes());
        }
        _ => {
            wire.push(127);
            wire.extend((payload.len() as u64).to_be_bytes());
        }
    }
    wire.extend(payload);
}

/// What the bytes of a peer have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Frames, none of them a Close.
    Frames,
    /// A whole Close frame.
    Close,
    /// Something that no client may send.
    Garbage,
}

/// Looks for the peer's Close frame in what it sends, skipping the payload of all others.
#[derive(Debug, Default)]
pub(super) struct CloseFinder {
    header: Vec<u8>,
    to_skip: u64,
    closing: bool,
}

impl CloseFinder {
    /// Takes in what was read.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Seen {
        loop {
            let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(bytes.len());
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.to_skip -= skipped as u64;
            if self.to_skip > 0 {
                return Seen::Frames;
            }
            if self.closing {
                return Seen::Close;
            }
            let Some((byte, rest)) = bytes.split_first() else { return Seen::Frames };
            bytes = rest;
            self.header.push(*byte);
            match parse_header(&self.header) {
                Header::Incomplete => {}
                Header::Illegal => return Seen::Garbage,
                Header::Complete { is_close, payload } => {
                    self.header.clear();
                    self.closing = is_close;
                    self.to_skip = payload;
                }
            }
        }
    }
}

enum Header {
    Incomplete,
    Illegal,
    Complete { is_close: bool, payload: u64 },
}

/// Reads a frame header up to and including the masking key (RFC 6455 §5.2).
fn parse_header(bytes: &[u8]) -> Header {
    let [first, rest @ ..] = bytes else { return Header::Incomplete };
    let opcode = first & 0x0f;
    let (reserved_bits, is_control) = (first & 0x70, opcode >= 8);
    if reserved_bits != 0 || !matches!(opcode, 0..=2 | 8..=10) {
        return Header::Illegal;
    }
    let [second, rest @ ..] = rest else { return Header::Incomplete };
    let (is_masked, len) = (second & 0x80 != 0, second & 0x7f);
    if !is_masked || (is_control && (len > 125 || first & 0x80 == 0)) {
        return Header::Illegal;
    }
    let (payload, rest) = match len {
        126 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Header::Incomplete,
        },
        127 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Header::Incomplete,
        },
        len => (u64::from(len), rest),
    };
    if rest.len() < 4 {
        return Header::Incomplete;
    }
    Header::Complete { is_close: opcode == 8, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed_in_pieces(bytes: &[u8], size: usize) -> Seen {
        let mut finder = CloseFinder::default();
        let mut seen = Seen::Frames;
        for piece in bytes.chunks(size) {
            seen = finder.feed(piece);
            if seen != Seen::Frames {
                break;
            }
        }
        seen
    }

    fn masked(first: u8, payload_len: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload_len {
            0..=125 => frame.push(0x80 | payload_len as u8),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((payload_len as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload_len as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(vec![0x88; payload_len]);
        frame
    }

    /// Vectors 45 and 46: whatever the pieces and the lengths before it, the Close is found.
    #[test]
    fn the_close_is_found_behind_frames_of_every_length_encoding() {
        for before in [0, 125, 126, 65_535, 65_536] {
            for close_len in [0, 2, 125] {
                let bytes = [masked(0x82, before), masked(0x88, close_len)].concat();
                for size in [1, 2, 7, bytes.len()] {
                    let seen = feed_in_pieces(&bytes, size);
                    assert_eq!(seen, Seen::Close, "{before} {close_len} {size}");
                }
                let cut = &bytes[..bytes.len() - 1];
                assert_eq!(feed_in_pieces(cut, 1), Seen::Frames, "{before} {close_len} cut");
            }
        }
    }

    /// Vector 47.
    #[test]
    fn what_no_client_may_send_is_garbage() {
        let unmasked = vec![0x81, 0x02, b'h', b'i'];
        let reserved_bit = masked(0xc1, 3);
        let reserved_opcode = masked(0x83, 3);
        let fragmented_close = masked(0x08, 2);
        let long_close = masked(0x88, 126);
        let http = b"GET / HTTP/1.1\r\n".to_vec();
        for bytes in [unmasked, reserved_bit, reserved_opcode, fragmented_close, long_close, http] {
            assert_eq!(feed_in_pieces(&bytes, 1), Seen::Garbage, "{bytes:02x?}");
        }
    }

    #[test]
    fn close_frames_carry_code_and_reason() {
        let mut wire = Vec::new();
        write_close(&mut wire, &CloseFrame::new(4001, "no").unwrap());
        assert_eq!(wire, [0x88, 4, 0x0f, 0xa1, b'n', b'o']);
    }

    #[test]
    fn text_frames_carry_their_length() {
        for (len, header) in [(125, vec![0x81, 125]), (126, vec![0x81, 126, 0, 126])] {
            let mut wire = Vec::new();
            write_text(&mut wire, &"x".repeat(len));
            assert_eq!(wire[..header.len()], header);
            assert_eq!(wire.len(), header.len() + len);
        }
    }
}
