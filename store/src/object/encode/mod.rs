//! Making content shorter for the wire: zstd alone, or against an object that both sides hold.
//!
//! The delta is zstd's reference prefix (RFC 8878 3.1; `ZSTD_CCtx_refPrefix`), as `zstd --patch-from` does it: level 1 with
//! long-distance matching, which on real re-exports beat every higher level at a tenth of their time
//! (`docs/decisions/0004-delta-is-a-zstd-reference-prefix.md`). Nothing here is trusted by a receiver: what is decoded must verify
//! against the block list.

mod base_index;

pub use self::base_index::BaseIndex;

use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// Level for content that has no base: fast enough for the links that it is used on.
const LEVEL: i32 = 1;
/// The window that a delta may reach back over: a whole piece and a whole window of the base, 32 MiB together.
const DELTA_WINDOW_LOG: u32 = 25;
/// Content of which this share or more would be left is sent as it is: decoding it would cost more than it saves.
const WORTH_PERCENT: usize = 92;
/// The probe looks at this much of a block.
const PROBE_BYTES: usize = 32 << 10;

/// Why encoded content cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is not what zstd writes, or refers to a base that is not the one given.
    #[error("the content does not decode: {reason}")]
    Malformed {
        /// What zstd says.
        reason: &'static str,
    },
    /// It decodes to fewer bytes than announced.
    #[error("the content decodes to {actual_bytes} bytes instead of {expected_bytes}")]
    Length {
        /// What was announced.
        expected_bytes: usize,
        /// What it is.
        actual_bytes: usize,
    },
}

/// Says by a sample from the middle whether compressing content is worth it. Costs a thirtieth of compressing a block.
pub fn is_compressible(content: &[u8]) -> bool {
    let start = content.len().saturating_sub(PROBE_BYTES) / 2;
    let sample = content.get(start..content.len().min(start + PROBE_BYTES)).unwrap_or(content);
    compress(sample).is_some()
}

/// Compresses content; none when that saves too little.
pub fn compress(content: &[u8]) -> Option<Vec<u8>> {
    // Making a context costs more than a small file.
    let kept = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut context = kept.or_else(new_context)?;
    let encoded = encode(&mut context, content);
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if encoded.is_some() && contexts.len() < CONTEXTS_KEPT {
        contexts.push(context);
    }
    drop(contexts);
    worth(content, encoded?)
}

/// Compresses content against a part of its base; none when that saves too little. Memory: the output and about 10 MiB.
///
/// The two must not share memory: zstd then takes that part of the base for overwritten.
pub fn compress_against(base: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let mut context = new_context()?;
    context.set_parameter(CParameter::WindowLog(DELTA_WINDOW_LOG)).ok()?;
    context.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
    context.ref_prefix(base).ok()?;
    worth(content, encode(&mut context, content)?)
}

fn worth(content: &[u8], encoded: Vec<u8>) -> Option<Vec<u8>> {
    (encoded.len() * 100 < content.len() * WORTH_PERCENT).then_some(encoded)
}

/// Contexts that nobody uses, for content without a base.
static CONTEXTS: Mutex<Vec<CCtx<'static>>> = Mutex::new(Vec::new());
/// How many of them are kept, of about 1 MiB each.
const CONTEXTS_KEPT: usize = 4;

/// Errors of zstd here can only be that memory is short: the content then goes as it is.
fn new_context<'a>() -> Option<CCtx<'a>> {
    let mut context = CCtx::try_create()?;
    let mut set = |parameter| context.set_parameter(parameter).ok();
    set(CParameter::CompressionLevel(LEVEL))?;
    // The receiver knows the length, and verifies by BLAKE3.
    set(CParameter::ContentSizeFlag(false))?;
    set(CParameter::ChecksumFlag(false))?;
    Some(context)
}

fn encode(context: &mut CCtx<'_>, content: &[u8]) -> Option<Vec<u8>> {
    context.set_pledged_src_size(Some(content.len() as u64)).ok()?;
    let mut encoded = Vec::with_capacity(compress_bound(content.len()));
    context.compress2(&mut encoded, content).ok()?;
    Some(encoded)
}

/// Decodes content of exactly `length` bytes, with the part of the base that it was compressed against. Takes no more memory
/// than the content, whatever the input says.
///
/// # Errors
/// [`DecodeError`].
pub fn decompress(encoded: &[u8], base: Option<&[u8]>, length: usize) -> Result<Vec<u8>, DecodeError> {
    let malformed = |code| DecodeError::Malformed { reason: get_error_name(code) };
    let mut context = DCtx::create();
    if let Some(base) = base {
        context.ref_prefix(base).map_err(malformed)?;
    }
    let mut content = Vec::with_capacity(length);
    context.decompress(&mut content, encoded).map_err(malformed)?;
    if content.len() == length {
        Ok(content)
    } else {
        Err(DecodeError::Length { expected_bytes: length, actual_bytes: content.len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::fixture::bytes;

    #[test]
    fn noise_is_sent_as_it_is_and_text_is_compressed() {
        let noise = bytes(300_000, 1);
        assert!(!is_compressible(&noise));
        assert_eq!(compress(&noise), None);
        let text: Vec<u8> = (0..30_000u32).flat_map(|n| format!("v {n} 0.5 1.0\n").into_bytes()).collect();
        assert!(is_compressible(&text));
        let encoded = compress(&text).unwrap();
        assert!(encoded.len() * 3 < text.len(), "{}", encoded.len());
        assert_eq!(decompress(&encoded, None, text.len()).unwrap(), text);
    }

    #[test]
    fn content_that_moved_in_its_base_costs_next_to_nothing() {
        let base = bytes(3 << 20, 2);
        let mut content = base[777_777..777_777 + (1 << 20)].to_vec();
        content[5000] ^= 1;
        let encoded = compress_against(&base, &content).unwrap();
        assert!(encoded.len() < 300, "{}", encoded.len());
        assert_eq!(decompress(&encoded, Some(&base), content.len()).unwrap(), content);
    }

    #[test]
    fn another_base_gives_an_error_or_other_content_and_never_more_memory() {
        let base = bytes(1 << 20, 3);
        let content = base[100..60_100].to_vec();
        let encoded = compress_against(&base, &content).unwrap();
        let mut damaged = base.clone();
        damaged[50_000] ^= 1;
        let decoded = decompress(&encoded, Some(&damaged), 60_000).unwrap();
        assert_ne!(decoded, &base[100..60_100]);
        assert!(decompress(&encoded, None, 60_000).is_err());
        assert!(decompress(&encoded, Some(&base), 59_999).is_err(), "no room for one byte more");
        let longer = decompress(&encoded, Some(&base), 60_001);
        assert_eq!(longer, Err(DecodeError::Length { expected_bytes: 60_001, actual_bytes: 60_000 }));
    }

    proptest! {
        #[test]
        fn bytes_of_a_peer_never_panic(input in prop::collection::vec(any::<u8>(), 0..400), length in 0..2000usize) {
            let base = bytes(1000, 4);
            // The first bytes of a frame make it more than noise.
            let framed = [&[0x28, 0xb5, 0x2f, 0xfd][..], &input].concat();
            for encoded in [&input, &framed] {
                for base in [None, Some(&base[..])] {
                    if let Ok(content) = decompress(encoded, base, length) {
                        prop_assert_eq!(content.len(), length);
                    }
                }
            }
        }
    }
}
