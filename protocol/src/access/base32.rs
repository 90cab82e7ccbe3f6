//! Base 32 as people copy it: RFC 4648's alphabet in lower case, no padding, one spelling for each value.

/// RFC 4648, section 6, in lower case: no 0, 1, 8 or 9, which look like letters.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bits of one character.
const BITS: u32 = 5;

/// Writes bytes; the result has a character for each five bits, the last filled up with zeros.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut held) = (0_u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        held += 8;
        while held >= BITS {
            held -= BITS;
            text.push(character(buffer >> held));
        }
    }
    if held > 0 {
        text.push(character(buffer << (BITS - held)));
    }
    text
}

/// Reads what [`encode`] wrote; none for another character, a length that no bytes have, or bits that are not zero.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut held) = (0_u32, 0);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        buffer = (buffer << BITS) | u32::try_from(value).ok()?;
        held += BITS;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((buffer >> held) & 0xff).ok()?);
        }
    }
    let rest = buffer & ((1 << held) - 1);
    (held < BITS && rest == 0).then_some(bytes)
}

fn character(value: u32) -> char {
    let index = usize::try_from(value & 31).unwrap_or_default();
    char::from(ALPHABET.get(index).copied().unwrap_or(b'a'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_hold() {
        for (plain, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn a_value_has_one_spelling() {
        for bad in ["m", "mz1", "MY", "my=", "mz", "m y", "mzx", "mzxw6y", "é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn what_reads_is_what_would_be_written(text in "[a-z2-7]{0,40}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
