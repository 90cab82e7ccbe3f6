//! The bytes of an entry.
//!
//! A line is the entry as JSON without spaces, in the order of the fields, all in ASCII (anything else is written `\u....`),
//! with the member `hash` at its end. The hash is BLAKE3 in derive-key mode over the hash before (32 zero bytes before the
//! first) and the bytes of the line up to that member, `}` in its place. So it is over bytes, not over what a parser makes
//! of them.

use thiserror::Error;

use super::{AuditAction, AuditEntry};
use crate::hash::AuditHash;

/// The derive-key context of the chain.
const CONTEXT: &str = "avalon 2026 audit chain v1";
/// What the hash stands behind.
const MEMBER: &[u8] = b",\"hash\":\"";
/// What ends a line.
const END: &[u8] = b"\"}";
const HASH_DIGITS: usize = 64;

/// Longest line, in bytes, without its end; [`AuditFact::bounded`](super::AuditFact::bounded) sees to it.
pub const MAX_LINE_BYTES: usize = 256 << 10;

impl AuditHash {
    /// What stands before the first entry.
    pub const START: Self = Self::from_bytes([0; 32]);

    /// Returns the hash after `body`, an entry without its hash.
    fn after(self, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(self.as_bytes()).update(body);
        Self::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// Returns the line of an entry with its newline, and its hash.
pub fn seal(before: AuditHash, entry: &AuditEntry) -> (Vec<u8>, AuditHash) {
    #[expect(clippy::expect_used, reason = "plain data into a vector: JSON has nothing to fail on")]
    let json = serde_json::to_string(entry).expect("an entry always serialises");
    let mut line = ascii(&json);
    let hash = before.after(&line);
    line.pop();
    line.extend_from_slice(MEMBER);
    line.extend_from_slice(hash.to_string().as_bytes());
    line.extend_from_slice(END);
    line.push(b'\n');
    (line, hash)
}

/// Outside of texts JSON has ASCII only, so that each other character may be escaped wherever it stands.
fn ascii(json: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(json.len() + HASH_DIGITS + 16);
    for character in json.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            bytes.push(character as u8);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                bytes.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
    bytes
}

/// A line that was read, whether it stands where it belongs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// What it says.
    pub entry: AuditEntry,
    /// The hash that it says it has.
    pub stated: AuditHash,
    body: Vec<u8>,
}

/// Why a line is no line of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidLine {
    /// It is longer than any.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// It has no hash at its end.
    #[error("the line does not end with a hash")]
    NoHash,
    /// It is not an entry.
    #[error("the line is no entry")]
    NoEntry,
}

impl AuditLine {
    /// Reads a line without its newline. That its hash is right is another question: [`Self::follows`].
    ///
    /// # Errors
    /// [`InvalidLine`].
    pub fn parse(line: &[u8]) -> Result<Self, InvalidLine> {
        if line.len() > MAX_LINE_BYTES {
            return Err(InvalidLine::TooLong);
        }
        let at = line.len().checked_sub(MEMBER.len() + HASH_DIGITS + END.len()).ok_or(InvalidLine::NoHash)?;
        let (body, hash) = line.split_at(at);
        let digits = hash.strip_prefix(MEMBER).and_then(|rest| rest.strip_suffix(END));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let stated = digits.and_then(|digits| digits.parse().ok()).ok_or(InvalidLine::NoHash)?;
        let body = [body, b"}"].concat();
        let entry = serde_json::from_slice(&body).map_err(|_| InvalidLine::NoEntry)?;
        Ok(Self { entry, stated, body })
    }

    /// Says whether this line is what was written after the entry with hash `before`.
    pub fn follows(&self, before: AuditHash) -> bool {
        before.after(&self.body) == self.stated
    }

    /// Returns the hash that this line should have after the entry with hash `before`.
    pub fn hash_after(&self, before: AuditHash) -> AuditHash {
        before.after(&self.body)
    }

    /// Of the first line of a file: the hash that it says stands before it.
    pub fn after(&self) -> Option<AuditHash> {
        let is_begin = self.entry.fact.action == AuditAction::Begin;
        is_begin.then(|| self.entry.fact.detail.get("after")?.parse().ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditActor, AuditFact, AuditOutcome};

    fn entry(seq: u64, fact: AuditFact) -> AuditEntry {
        AuditEntry { seq, at: "2026-11-23T03:25:21.000Z".into(), node: "ws12@london".into(), fact }
    }

    /// Frozen, and the example of docs/storage.md: a change here means a new context.
    #[test]
    fn golden_bytes_of_a_chain_of_two() {
        let begin = AuditFact::daemon(AuditAction::Begin).detail("after", AuditHash::START.to_string());
        let (first, hash) = seal(AuditHash::START, &entry(0, begin));
        let anna = AuditActor::User { uid: 1001, name: "änna".into() };
        let pull = AuditFact::new(anna, AuditAction::Pull, AuditOutcome::Done);
        let pull = pull.project("lantern").about("robot/modelDefault@v012").detail("answer", "200");
        let (second, _) = seal(hash, &entry(1, pull));
        assert_eq!(String::from_utf8(first).unwrap(), GOLDEN[0]);
        assert_eq!(String::from_utf8(second.clone()).unwrap(), GOLDEN[1]);
        let read = AuditLine::parse(&second[..second.len() - 1]).unwrap();
        assert!(read.follows(hash) && !read.follows(AuditHash::START));
        assert_eq!(read.entry.fact.actor, AuditActor::User { uid: 1001, name: "änna".into() });
    }

    const GOLDEN: [&str; 2] = [
        concat!(
            r#"{"seq":0,"at":"2026-11-23T03:25:21.000Z","node":"ws12@london","actor":{"kind":"daemon"},"#,
            r#""action":"begin","outcome":"done","detail":{"after":"00000000000000000000000000000000"#,
            r#"00000000000000000000000000000000"},"hash":"acb0aa351f540dd901e09ac72a22f9ab2859382a9970"#,
            r#"a68ff8ae737b680c1257"}"#,
            "\n"
        ),
        concat!(
            r#"{"seq":1,"at":"2026-11-23T03:25:21.000Z","node":"ws12@london","actor":{"kind":"user","#,
            r#""uid":1001,"name":"\u00e4nna"},"action":"pull","outcome":"done","project":"lantern","#,
            r#""about":["robot/modelDefault@v012"],"detail":{"answer":"200"},"hash":"06e578e429e0d34b"#,
            r#"41e12b9b2e7a1a776ef6e6d4613464356c1a8a6d6eb5a537"}"#,
            "\n"
        ),
    ];

    #[test]
    fn a_line_is_ascii_and_bounded_whatever_names_hold() {
        let mut fact = AuditFact::daemon(AuditAction::Call).project("\u{202e}\u{7f}\u{1b}[2J\n");
        for number in 0..1000 {
            fact = fact.about("\u{1}\u{1F600}".repeat(5000));
            fact = fact.detail(&format!("{number}{}", "k".repeat(3000)), "\u{1}".repeat(9000));
        }
        let (line, _) = seal(AuditHash::START, &entry(7, fact.bounded()));
        assert!(line.len() <= MAX_LINE_BYTES, "{}", line.len());
        assert!(line[..line.len() - 1].iter().all(|byte| (0x20..0x7f).contains(byte)));
        assert_eq!(AuditLine::parse(&line[..line.len() - 1]).unwrap().entry.fact.about.len(), 16);
    }

    #[test]
    fn a_word_of_a_newer_version_is_read_as_another() {
        let line =
            String::from_utf8(seal(AuditHash::START, &entry(1, AuditFact::daemon(AuditAction::Stop))).0);
        let line = line.unwrap().replace("\"stop\"", "\"dance\"");
        let read = AuditLine::parse(line.trim_end().as_bytes()).unwrap();
        assert_eq!(read.entry.fact.action, AuditAction::Other);
        assert!(!read.follows(AuditHash::START));
    }
}
