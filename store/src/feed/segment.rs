//! The bytes of a segment: its header and its frames.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

use avalon_protocol::{
    feed::{FeedId, SealedGroup},
    limits::MAX_GROUP_BYTES,
    rel_path::RelPath,
};

use crate::fs::path_of;

/// At this length a segment is full, and the next one begins.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;
pub(super) const HEADER_BYTES: u64 = 16;
pub(super) const HEADER_LENGTH: usize = 16;
/// The newest format. The next is 2, then 4: not 3, 5 or 9, which are one bit from 1.
///
/// A header whose format is one bit from this one is taken for this one that rotted, and the segment is put aside, where it may be one
/// of a newer version. Numbers with an odd number of ones are never one bit apart.
pub(super) const FORMAT: u32 = 1;
const _: () = assert!(FORMAT.count_ones() % 2 == 1, "one bit that rots must not make a format of another");
const MAGIC: [u8; 4] = *b"AVLF";
const FRAME_HEADER_BYTES: usize = 8;
const BODY_LENGTH_BYTES: usize = 4;
const SIGNATURE_BYTES: usize = 64;
const SMALLEST_PAYLOAD: usize = BODY_LENGTH_BYTES + SIGNATURE_BYTES;
const LARGEST_PAYLOAD: usize = SMALLEST_PAYLOAD + MAX_GROUP_BYTES;

pub(super) fn file_name(segment: u32) -> RelPath {
    path_of(&format!("{segment:08}.alog"))
}

pub(super) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".alog")?;
    (digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(super) fn encode_header(first_seq: u64) -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    let fields = MAGIC.into_iter().chain(FORMAT.to_le_bytes()).chain(first_seq.to_le_bytes());
    header.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    header
}

/// Returns the format and the number of the first record; `None` when it is no header.
pub(super) fn decode_header(header: &[u8; HEADER_LENGTH]) -> Option<(u32, u64)> {
    let (magic, rest) = header.split_first_chunk::<4>()?;
    let (format, first_seq) = rest.split_first_chunk::<4>()?;
    let first_seq = u64::from_le_bytes(first_seq.try_into().ok()?);
    (*magic == MAGIC).then_some((u32::from_le_bytes(*format), first_seq))
}

/// Writes a group as a frame; `None` when it breaks a limit, which no accepted group does.
pub(super) fn encode_frame(group: &SealedGroup) -> Option<Vec<u8>> {
    if group.body.len() > MAX_GROUP_BYTES || group.signature.len() != SIGNATURE_BYTES {
        return None;
    }
    let body_length = u32::try_from(group.body.len()).ok()?.to_le_bytes();
    let payload = [&body_length[..], &group.body, &group.signature].concat();
    let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let crc = crc32c::crc32c(&payload).to_le_bytes();
    Some([&length[..], &crc, &payload].concat())
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub(super) enum Frame {
    /// A group, and how many bytes it takes.
    Good(SealedGroup, u64),
    /// Something else.
    Bad,
    /// Nothing.
    End,
}

/// Reads the next frame.
pub(super) fn read_frame(input: &mut impl Read) -> io::Result<Frame> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match read_up_to(input, &mut header)? {
        0 => return Ok(Frame::End),
        FRAME_HEADER_BYTES => {}
        _ => return Ok(Frame::Bad),
    }
    let Some((length, crc)) = decode_frame_header(header) else { return Ok(Frame::Bad) };
    let mut payload = vec![0; length];
    if read_up_to(input, &mut payload)? < length || crc32c::crc32c(&payload) != crc {
        return Ok(Frame::Bad);
    }
    let frame_bytes = (FRAME_HEADER_BYTES + length) as u64;
    Ok(decode_payload(&payload).map_or(Frame::Bad, |group| Frame::Good(group, frame_bytes)))
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn decode_frame_header(header: [u8; FRAME_HEADER_BYTES]) -> Option<(usize, u32)> {
    let (length, crc) = header.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let plausible = (SMALLEST_PAYLOAD..=LARGEST_PAYLOAD).contains(&length);
    plausible.then_some((length, u32::from_le_bytes(crc.try_into().ok()?)))
}

fn decode_payload(payload: &[u8]) -> Option<SealedGroup> {
    let (body_length, rest) = payload.split_first_chunk::<BODY_LENGTH_BYTES>()?;
    let (body, signature) = rest.split_last_chunk::<SIGNATURE_BYTES>()?;
    let whole = u32::from_le_bytes(*body_length) as usize == body.len();
    whole.then(|| SealedGroup { body: body.to_vec(), signature: signature.to_vec() })
}

/// Says whether a good frame starts anywhere in `bytes`. The two lengths of a frame must agree before its checksum is
/// computed, so this costs little more than one pass.
pub(super) fn has_good_frame(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|start| {
        let Some(frame) = bytes.get(start..) else { return false };
        let Some((header, rest)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return false };
        let Some((length, crc)) = decode_frame_header(*header) else { return false };
        let Some((body_length, _)) = rest.split_first_chunk::<BODY_LENGTH_BYTES>() else { return false };
        u32::from_le_bytes(*body_length) as usize + SMALLEST_PAYLOAD == length
            && rest.get(..length).is_some_and(|payload| crc32c::crc32c(payload) == crc)
    })
}

/// Returns the highest number after a group that the good frames in `bytes` claim, wherever they start; 0 without one. Nothing
/// is verified but checksums.
pub(super) fn newest_claimed(bytes: &[u8]) -> u64 {
    let (mut newest, mut at) = (0, 0);
    while let Some(mut rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match read_frame(&mut rest) {
            Ok(Frame::Good(group, length)) => {
                newest = newest.max(group.claimed_end().unwrap_or(0));
                at += usize::try_from(length).unwrap_or(usize::MAX);
            }
            Ok(Frame::Bad | Frame::End) | Err(_) => at += 1,
        }
    }
    newest
}

/// Returns which feed a group names and the number of its first record, without reading the records.
pub(crate) fn peek(group: &SealedGroup) -> Option<(FeedId, u64)> {
    let ((_format, feed, first_seq), _) =
        postcard::take_from_bytes::<(u16, FeedId, u64)>(&group.body).ok()?;
    Some((feed, first_seq))
}

/// What an append needs of a file; tests put one in its place that fails.
pub(super) trait SegmentFile: Send + std::fmt::Debug {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// fdatasync: the bytes, and the length of the file.
    fn sync(&mut self) -> io::Result<()>;
}

impl SegmentFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(size: usize) -> SealedGroup {
        SealedGroup { body: vec![7; size], signature: vec![9; SIGNATURE_BYTES] }
    }

    /// Frozen: a change here means a new format number, not a new expectation.
    #[test]
    fn golden_bytes_of_format_1() {
        assert_eq!(encode_header(0x0102), *b"AVLF\x01\0\0\0\x02\x01\0\0\0\0\0\0");
        assert_eq!(decode_header(&encode_header(77)), Some((1, 77)));
        let frame = encode_frame(&group(3)).unwrap();
        assert_eq!(frame[..4], [71, 0, 0, 0], "4 + 3 + 64");
        assert_eq!(frame[8..15], [3, 0, 0, 0, 7, 7, 7]);
        assert_eq!(crc32c::crc32c(&frame[8..]).to_le_bytes(), frame[4..8]);
    }

    #[test]
    fn frames_read_back_and_end() {
        let bytes = [encode_frame(&group(3)).unwrap(), encode_frame(&group(500)).unwrap()].concat();
        let mut input = bytes.as_slice();
        for size in [3, 500] {
            assert!(matches!(read_frame(&mut input).unwrap(), Frame::Good(read, bytes)
                if read == group(size) && bytes == size as u64 + 76));
        }
        assert!(matches!(read_frame(&mut input).unwrap(), Frame::End));
    }

    #[test]
    fn what_is_cut_flipped_or_zero_is_bad() {
        let frame = encode_frame(&group(20)).unwrap();
        for end in 1..frame.len() {
            assert!(matches!(read_frame(&mut &frame[..end]).unwrap(), Frame::Bad), "cut at {end}");
        }
        for at in 0..frame.len() {
            let mut flipped = frame.clone();
            flipped[at] ^= 4;
            assert!(matches!(read_frame(&mut flipped.as_slice()).unwrap(), Frame::Bad), "flip at {at}");
        }
        assert!(matches!(read_frame(&mut [0; 300].as_slice()).unwrap(), Frame::Bad));
    }

    #[test]
    fn a_good_frame_is_found_at_any_offset_and_nothing_in_zeros() {
        let frame = encode_frame(&group(20)).unwrap();
        for before in [0, 1, 5, 100] {
            let bytes = [vec![0xab; before], frame.clone(), vec![0; 9]].concat();
            assert!(has_good_frame(&bytes), "{before}");
        }
        assert!(!has_good_frame(&[0; 1000]));
        assert!(!has_good_frame(&frame[1..]));
        assert!(!has_good_frame(&frame[..frame.len() - 1]));
    }

    #[test]
    fn segment_names_have_eight_digits() {
        assert_eq!(file_name(12).as_str(), "00000012.alog");
        assert_eq!(number_of("00000012.alog"), Some(12));
        for other in ["12.alog", "00000012.log", "+0000012.alog", ".avalon-tmp-1-1"] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
