//! Base 32 as people copy it: RFC 4648's alphabet in lower case, no padding, one spelling for each value.

use data_encoding::BASE32_NOPAD;

/// Writes bytes; the result has a character for each five bits, the last filled up with zeros.
pub fn encode(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// Reads what [`encode`] wrote; none for another character, a length that no bytes have, or bits that are not zero.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let is_ours = !text.bytes().any(|character| character.is_ascii_uppercase());
    is_ours.then(|| BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok())?
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
