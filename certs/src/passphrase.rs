//! A private key under a passphrase: PKCS#8 with PBES2, scrypt and AES-256-CBC, as other tools read it.
//!
//! The studio's key is at rest on a stick in a drawer, and the passphrase is what stands between whoever finds it and the
//! studio; so guessing one costs 128 MiB of memory and a good part of a second.

use std::{fmt, path::Path};

use pkcs8::{
    EncryptedPrivateKeyInfoOwned, LineEnding,
    der::{
        Decode as _, Encode as _,
        asn1::OctetString,
        pem::{self, PemLabel as _},
    },
    pkcs5::{self, EncryptionScheme, pbes2, scrypt},
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::PrivatePkcs8KeyDer;
use thiserror::Error;

use crate::key_file::{Access, KeyFileError, read_file};

/// What stands in the first line of such a file.
const LABEL: &str = EncryptedPrivateKeyInfoOwned::PEM_LABEL;

/// The cost of scrypt, as OWASP asks for: 2^17 blocks of 8 times 128 bytes.
const LOG_N: u8 = 17;
const R: u32 = 8;
const P: u32 = 1;

/// The most memory that opening a key may take; a file that asks for more is damaged, or made to exhaust this machine.
const MAX_SCRYPT_BYTES: u64 = 1 << 30;

/// The shortest passphrase that is taken for a new key, in characters.
pub const MIN_PASSPHRASE_CHARACTERS: usize = 8;

/// The longest that is read, in bytes.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;

/// A passphrase. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

/// Why a key could not be put under a passphrase or taken from under it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PassphraseError {
    /// Too short to be worth anything.
    #[error(
        "a passphrase has {MIN_PASSPHRASE_CHARACTERS} characters or more; four words that do not belong together are a good one"
    )]
    TooShort,
    /// Too long to be one.
    #[error("a passphrase has at most {MAX_PASSPHRASE_BYTES} bytes on one line; this is something else")]
    TooLong,
    /// It opens nothing.
    #[error("the passphrase is wrong")]
    Wrong,
    /// The file asks for more memory or time than any that was written here.
    #[error("the encrypted key asks for more work than is done for one; restore it from its backup")]
    TooCostly,
    /// The file is not an encrypted key, or of another kind.
    #[error("the encrypted key is damaged, or not of the kind that is written here: scrypt and AES-256-CBC")]
    Malformed,
    /// The key could not be encrypted.
    #[error("the key could not be encrypted")]
    Encrypt,
    /// The system has no randomness to give.
    #[error("the system's random number generator failed")]
    Random,
}

impl Passphrase {
    /// Takes a passphrase for a new key.
    ///
    /// # Errors
    /// [`PassphraseError::TooShort`] and [`PassphraseError::TooLong`].
    pub fn for_new_key(text: &str) -> Result<Self, PassphraseError> {
        if text.chars().count() < MIN_PASSPHRASE_CHARACTERS {
            return Err(PassphraseError::TooShort);
        }
        Self::for_old_key(text)
    }

    /// Takes a passphrase to open a key with, whatever its length was when it was chosen.
    ///
    /// # Errors
    /// [`PassphraseError::TooLong`].
    pub fn for_old_key(text: &str) -> Result<Self, PassphraseError> {
        if text.len() > MAX_PASSPHRASE_BYTES || text.contains(['\n', '\r', '\0']) {
            return Err(PassphraseError::TooLong);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reads the first line of a file as a passphrase is written into it: for its owner alone.
///
/// # Errors
/// [`KeyFileError`] when it is missing, unreadable or open to other users.
pub fn read_passphrase_file(path: &Path) -> Result<String, KeyFileError> {
    let content = read_file(path, Access::Private)?;
    let text = String::from_utf8_lossy(&content);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Says whether a PEM file holds a key under a passphrase.
pub(crate) fn is_encrypted(pem: &[u8]) -> bool {
    let begin = format!("-----BEGIN {LABEL}-----");
    pem.windows(begin.len()).any(|window| window == begin.as_bytes())
}

/// Puts a key in PKCS#8 under a passphrase and writes it as PEM.
pub(crate) fn encrypt(
    key: &PrivatePkcs8KeyDer<'_>,
    passphrase: &Passphrase,
) -> Result<String, PassphraseError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut iv)).map_err(|_| PassphraseError::Random)?;
    let encrypted = || -> pkcs8::Result<String> {
        let params = scrypt::Params::new(LOG_N, R, P).map_err(|_| pkcs8::Error::ParametersMalformed)?;
        let scheme = pbes2::Parameters::generate_scrypt_aes256cbc(params, &salt, iv)?;
        let encrypted = scheme.encrypt(passphrase.0.as_bytes(), key.secret_pkcs8_der())?;
        let encrypted_data = OctetString::new(encrypted)?;
        let der =
            EncryptedPrivateKeyInfoOwned { encryption_algorithm: scheme.into(), encrypted_data }.to_der()?;
        Ok(pem::encode_string(LABEL, LineEnding::LF, &der).map_err(pkcs8::der::Error::from)?)
    };
    encrypted().map_err(|_| PassphraseError::Encrypt)
}

/// Takes a key from under its passphrase.
pub(crate) fn decrypt(
    text: &[u8],
    passphrase: &Passphrase,
) -> Result<PrivatePkcs8KeyDer<'static>, PassphraseError> {
    let (label, der) = pem::decode_vec(text).map_err(|_| PassphraseError::Malformed)?;
    if label != LABEL {
        return Err(PassphraseError::Malformed);
    }
    let info = EncryptedPrivateKeyInfoOwned::from_der(&der).map_err(|_| PassphraseError::Malformed)?;
    check_cost(&info.encryption_algorithm)?;
    match info.decrypt(passphrase.0.as_bytes()) {
        Ok(key) => Ok(key.as_bytes().to_vec().into()),
        // A wrong key makes wrong padding, or with luck right padding around what is no key.
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed) | pkcs8::Error::Asn1(_)) => {
            Err(PassphraseError::Wrong)
        }
        Err(_) => Err(PassphraseError::Malformed),
    }
}

fn check_cost(scheme: &EncryptionScheme) -> Result<(), PassphraseError> {
    let EncryptionScheme::Pbes2(parameters) = scheme else { return Err(PassphraseError::Malformed) };
    let Some(scrypt) = parameters.kdf.scrypt() else { return Err(PassphraseError::Malformed) };
    let bytes = scrypt
        .cost_parameter
        .saturating_mul(u64::from(scrypt.block_size))
        .saturating_mul(u64::from(scrypt.parallelization))
        .saturating_mul(128);
    if bytes > MAX_SCRYPT_BYTES { Err(PassphraseError::TooCostly) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file::PrivateKey;

    fn key() -> PrivatePkcs8KeyDer<'static> {
        PrivateKey::generate().unwrap().to_pkcs8()
    }

    #[test]
    fn a_key_comes_back_with_its_passphrase_and_no_other() {
        let (key, passphrase) = (key(), Passphrase::for_new_key("correct horse battery").unwrap());
        let pem = encrypt(&key, &passphrase).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{pem}");
        assert!(is_encrypted(pem.as_bytes()));
        assert_eq!(decrypt(pem.as_bytes(), &passphrase).unwrap(), key);
        let other = Passphrase::for_old_key("correct horse batterY").unwrap();
        assert!(matches!(decrypt(pem.as_bytes(), &other), Err(PassphraseError::Wrong)));
    }

    #[test]
    fn what_is_no_passphrase_is_refused() {
        assert!(matches!(Passphrase::for_new_key("seven77"), Err(PassphraseError::TooShort)));
        for long in ["x".repeat(MAX_PASSPHRASE_BYTES + 1), "two\nlines of it".into()] {
            assert!(matches!(Passphrase::for_new_key(&long), Err(PassphraseError::TooLong)));
        }
        assert_eq!(format!("{:?}", Passphrase::for_old_key("secret").unwrap()), "Passphrase(..)");
    }

    #[test]
    fn damaged_and_costly_keys_are_refused_before_any_work() {
        let passphrase = Passphrase::for_new_key("correct horse battery").unwrap();
        for bad in ["", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"]
        {
            assert!(matches!(decrypt(bad.as_bytes(), &passphrase), Err(PassphraseError::Malformed)), "{bad}");
        }
        let plain = PrivateKey::generate().unwrap().to_pem();
        assert!(!is_encrypted(plain.as_bytes()));
        assert!(matches!(decrypt(plain.as_bytes(), &passphrase), Err(PassphraseError::Malformed)));

        let costly = |log_n, r| {
            let params = scrypt::Params::new(log_n, r, 1).unwrap();
            check_cost(
                &pbes2::Parameters::generate_scrypt_aes256cbc(params, &[0; 16], [0; 16]).unwrap().into(),
            )
        };
        assert!(costly(LOG_N, R).is_ok() && costly(20, 8).is_ok());
        assert!(matches!(costly(21, 8), Err(PassphraseError::TooCostly)));
        let pbkdf2 = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(1, &[0; 16], [0; 16]).unwrap();
        assert!(matches!(check_cost(&pbkdf2.into()), Err(PassphraseError::Malformed)));
    }
}
