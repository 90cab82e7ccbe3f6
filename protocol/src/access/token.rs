//! The token by which a machine joins a studio: one line that somebody sends to the person at the new machine.
//!
//! `avalonjoin1-` and base 32 of `payload | checksum`. The payload is postcard: the fingerprint of the studio's CA, which
//! the new machine holds the server to; addresses to dial; a secret that is used once; when it ends; and the invite's id,
//! by which people speak of it. Whoever reads a token can join in its place, so it is never logged and `Debug` hides it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::base32;

/// What every token starts with: a scanner for leaked secrets finds it, and the number is the form's version.
pub const TOKEN_PREFIX: &str = "avalonjoin1-";

/// Most addresses in one token: a site is reached by its name, within and from outside, over two families.
pub const MAX_ADDRESSES: usize = 8;

/// Longest address in bytes: a DNS name of 253, a colon and a port.
pub const MAX_ADDRESS_BYTES: usize = 259;

/// Longest token that is read; the longest that is written has 3,500 characters.
const MAX_TOKEN_CHARACTERS: usize = 4096;

const CHECKSUM_BYTES: usize = 4;
const CHECKSUM_CONTEXT: &str = "avalon 2026 join token checksum v1";

/// The secret of an invite, from which the key of the joining side is derived. It is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Takes 32 bytes of randomness.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The name of an invite, as people say it: eight characters of base 32. It is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InviteId([u8; 5]);

/// A text that is no invite's id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not the id of an invite: eight of a-z and 2-7; `avalonctl invites` lists them")]
pub struct InvalidInviteId {
    /// The rejected text, shortened to 80 characters.
    pub text: String,
}

impl InviteId {
    /// Takes 5 bytes of randomness.
    pub const fn from_bytes(bytes: [u8; 5]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl FromStr for InviteId {
    type Err = InvalidInviteId;
    fn from_str(text: &str) -> Result<Self, InvalidInviteId> {
        let bytes = base32::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| InvalidInviteId { text: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for InviteId {
    type Error = InvalidInviteId;
    fn try_from(text: String) -> Result<Self, InvalidInviteId> {
        text.parse()
    }
}

impl From<InviteId> for String {
    fn from(id: InviteId) -> Self {
        id.to_string()
    }
}

/// Why a text is not a token, or not one that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// It does not start as one.
    #[error("a join token starts with {TOKEN_PREFIX}; copy the whole line that `avalonctl invite` printed")]
    Prefix,
    /// Longer than any token.
    #[error("the token has {characters} characters, more than any; copy one line only")]
    TooLong {
        /// How many it has.
        characters: usize,
    },
    /// A character that no token has.
    #[error("the token has a character that does not belong there at position {position}; copy it again")]
    Character {
        /// Which, counted from 1 over the whole text.
        position: usize,
    },
    /// Characters are missing or too many.
    #[error("the token is cut off or has characters too many; copy the whole line")]
    Length,
    /// Characters were changed.
    #[error("the token was changed on its way (its checksum is wrong); copy it again")]
    Checksum,
    /// The checksum is right and the content is none that this version knows.
    #[error("the content of the token is not valid: {rule}; ask for a new invite")]
    Content {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Its time is over.
    #[error("the token of invite {invite} has expired; ask for a new one with `avalonctl invite`")]
    Expired {
        /// The invite.
        invite: InviteId,
    },
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the certificate of the studio's CA in DER.
    pub fingerprint: [u8; 32],
    /// Where to dial, in this order: `name:port` or `address:port`. One to [`MAX_ADDRESSES`].
    pub addresses: Vec<String>,
    /// The secret.
    pub seed: Seed,
    /// When it ends, in seconds since 1970.
    pub expires_at_s: u64,
    /// The invite's name.
    pub invite: InviteId,
}

impl JoinToken {
    /// Writes the token.
    ///
    /// # Errors
    /// [`InvalidToken::Content`] when the addresses are none that a token can hold.
    pub fn encode(&self) -> Result<String, InvalidToken> {
        self.check()?;
        let content = |_| InvalidToken::Content { rule: "it can be written" };
        let mut bytes = postcard::to_stdvec(self).map_err(content)?;
        bytes.extend(checksum(&bytes));
        Ok(format!("{TOKEN_PREFIX}{}", base32::encode(&bytes)))
    }

    /// Reads a token; spaces and line ends around it do not matter, and nothing else is overlooked.
    ///
    /// # Errors
    /// [`InvalidToken`], all but [`InvalidToken::Expired`], for which ask [`JoinToken::check_time`].
    pub fn decode(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim_ascii();
        let body = text.strip_prefix(TOKEN_PREFIX).ok_or(InvalidToken::Prefix)?;
        if text.len() > MAX_TOKEN_CHARACTERS {
            return Err(InvalidToken::TooLong { characters: text.chars().count() });
        }
        let is_odd = |character: char| !matches!(character, 'a'..='z' | '2'..='7');
        if let Some(position) = text.chars().skip(TOKEN_PREFIX.len()).position(is_odd) {
            return Err(InvalidToken::Character { position: TOKEN_PREFIX.len() + position + 1 });
        }
        let bytes = base32::decode(body).ok_or(InvalidToken::Length)?;
        let (payload, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvalidToken::Length)?;
        if *sum != checksum(payload) {
            return Err(InvalidToken::Checksum);
        }
        let Ok((token, [])) = postcard::take_from_bytes::<Self>(payload) else {
            return Err(InvalidToken::Content { rule: "it can be read by this version" });
        };
        token.check()?;
        Ok(token)
    }

    /// Checks that the token has not expired at `now_s`, in seconds since 1970.
    ///
    /// # Errors
    /// [`InvalidToken::Expired`].
    pub fn check_time(&self, now_s: u64) -> Result<(), InvalidToken> {
        if now_s < self.expires_at_s { Ok(()) } else { Err(InvalidToken::Expired { invite: self.invite }) }
    }

    fn check(&self) -> Result<(), InvalidToken> {
        if self.addresses.is_empty() || self.addresses.len() > MAX_ADDRESSES {
            return Err(InvalidToken::Content { rule: "it has one to eight addresses" });
        }
        if self.addresses.iter().all(|address| is_address(address)) {
            Ok(())
        } else {
            Err(InvalidToken::Content { rule: "its addresses are NAME:PORT" })
        }
    }
}

/// Says whether a text is a name or address and a port, of characters that cannot act on a terminal.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let port = port.parse::<u16>().is_ok_and(|number| number > 0 && port.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= MAX_ADDRESS_BYTES && !host.is_empty() && host.bytes().all(plain) && port
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = blake3::derive_key(CHECKSUM_CONTEXT, payload);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            fingerprint: [7; 32],
            addresses: vec!["lon.example.net:4700".into(), "[fd00::1]:4700".into()],
            seed: Seed::from_bytes([9; 32]),
            expires_at_s: 1_800_003_600,
            invite: InviteId::from_bytes([1, 2, 3, 4, 5]),
        }
    }

    #[test]
    fn a_token_is_one_line_and_its_bytes_never_change() {
        let text = token().encode().unwrap();
        assert_eq!(
            text,
            "avalonjoin1-a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqefdmn5xc4zlymfwxa3dffzxgk5b2gq3tamaoln\
             tgimbqhi5dcxj2gq3tamajbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbgimbj62ayegczlcmftweylg7r3hqri"
        );
        assert_eq!(JoinToken::decode(&format!("  {text}\n")), Ok(token()));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("Seed(..)") && !shown.contains("9, 9"), "{shown}");
    }

    #[test]
    fn every_damage_has_its_error() {
        let text = token().encode().unwrap();
        let decode = |text: &str| JoinToken::decode(text).unwrap_err();
        assert_eq!(decode(""), InvalidToken::Prefix);
        assert_eq!(decode(&text[1..]), InvalidToken::Prefix);
        assert_eq!(decode(&text.to_uppercase()), InvalidToken::Prefix);
        assert_eq!(decode(&text.replace("join1", "join2")), InvalidToken::Prefix);
        assert_eq!(decode(TOKEN_PREFIX), InvalidToken::Length);
        assert_eq!(
            decode(&format!("{text}{}", "a".repeat(4096))),
            InvalidToken::TooLong { characters: text.len() + 4096 }
        );
        let odd = format!("{}8{}", &text[..20], &text[21..]);
        assert_eq!(decode(&odd), InvalidToken::Character { position: 21 });
        assert_eq!(
            decode(&format!("{} {}", &text[..20], &text[20..])),
            InvalidToken::Character { position: 21 }
        );
        for cut in TOKEN_PREFIX.len()..text.len() {
            let error = decode(&text[..cut]);
            assert!(matches!(error, InvalidToken::Length | InvalidToken::Checksum), "{cut}: {error:?}");
        }
        for position in TOKEN_PREFIX.len()..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[position] = if bad[position] == b'a' { b'b' } else { b'a' };
            let error = decode(&String::from_utf8(bad).unwrap());
            assert!(matches!(error, InvalidToken::Checksum | InvalidToken::Length), "{position}: {error:?}");
        }
    }

    #[test]
    fn a_token_ends_at_its_second() {
        let token = token();
        assert_eq!(token.check_time(token.expires_at_s - 1), Ok(()));
        let error = token.check_time(token.expires_at_s).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token of invite aebagbaf has expired; ask for a new one with `avalonctl invite`"
        );
    }

    #[test]
    fn content_that_nobody_writes_is_refused_with_a_right_checksum() {
        let sealed = |mut bytes: Vec<u8>| {
            bytes.extend(checksum(&bytes));
            JoinToken::decode(&format!("{TOKEN_PREFIX}{}", base32::encode(&bytes))).unwrap_err()
        };
        let good = postcard::to_stdvec(&token()).unwrap();
        let content = |error| matches!(error, InvalidToken::Content { .. });
        assert!(content(sealed([good.as_slice(), &[0]].concat())));
        assert!(content(sealed(Vec::new())));
        for addresses in [
            vec![],
            vec!["lon:4700".into(); MAX_ADDRESSES + 1],
            vec!["lon".into()],
            vec![":4700".into()],
            vec!["lon:0".into()],
            vec!["lon:+1".into()],
            vec!["lon\u{1b}[2J:4700".into()],
            vec![format!("{}:4700", "l".repeat(MAX_ADDRESS_BYTES))],
        ] {
            let odd = JoinToken { addresses, ..token() };
            assert!(odd.encode().is_err());
            assert!(content(sealed(postcard::to_stdvec(&odd).unwrap())));
        }
    }

    #[test]
    fn an_invite_is_called_by_eight_characters() {
        let id = InviteId::from_bytes([255, 0, 255, 0, 255]);
        assert_eq!(id.to_string().len(), 8);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "aebagba", "aebagbaff", "AEBAGBAF", "aebagba8"] {
            assert!(bad.parse::<InviteId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_token_reads_back(
            fingerprint: [u8; 32], seed: [u8; 32], invite: [u8; 5], expires_at_s: u64,
            addresses in proptest::collection::vec("[a-z0-9.-]{1,253}:[1-9][0-9]{0,3}", 1..=MAX_ADDRESSES),
        ) {
            let token = JoinToken {
                fingerprint, addresses, seed: Seed::from_bytes(seed), expires_at_s, invite: InviteId::from_bytes(invite),
            };
            let text = token.encode().unwrap();
            prop_assert!(text.len() <= MAX_TOKEN_CHARACTERS);
            prop_assert_eq!(JoinToken::decode(&text), Ok(token));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "(avalonjoin1-)?[a-z2-7 é]{0,300}") {
            prop_assert!(JoinToken::decode(&text).is_err());
        }
    }
}
