//! What an authority keeps beside its key: a book of what it issued, and the lists of what it revoked.
//!
//! The book is one line for each certificate, so that a node can be revoked by its name. A list says all that was revoked so far; the one with
//! the highest number is the newest. Older ones stay, for whoever wants to see what was said when.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_protocol::{id::NodeId, limits::MAX_CRL_BYTES};

use super::{Authority, AuthorityError, ISSUING_VALIDITY, ListNumber, ToRevoke, params::since_epoch};
use crate::{
    key_file::{Access, Existing, WriteError, write_durably},
    revocation::RevocationList,
};

const BOOK_FILE: &str = "issued.txt";
const LOCK_FILE: &str = "issued.lock";
const LIST_PREFIX: &str = "revoked-";
const LIST_SUFFIX: &str = ".crl";

/// A list of revoked certificates that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeList {
    /// Where it lies, in DER.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// How many certificates it revokes, and how many of them for the first time.
    pub certificates: usize,
    /// Those that no list had before.
    pub new: usize,
}

/// Notes that a certificate was issued to a node.
pub(super) fn note(dir: &Path, serial: &[u8], node: &NodeId, what: &str) -> Result<(), AuthorityError> {
    let _one_at_a_time = lock(dir)?;
    let path = dir.join(BOOK_FILE);
    let mut text = read(&path)?;
    text.push_str(&format!("{} {node} {what}\n", hex(serial)));
    write_durably(&path, text.as_bytes(), Access::Private, Existing::Replace)
        .map_err(|source| AuthorityError::Write { what: "the book of what was issued", source })
}

/// Waits until nobody else changes the book or makes a list; until what it returns is dropped.
fn lock(dir: &Path) -> Result<fs::File, AuthorityError> {
    let failed = |source| AuthorityError::Write {
        what: "the lock of the book of what was issued",
        source: WriteError { action: "lock", path: dir.join(LOCK_FILE), source },
    };
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE));
    let file = file.map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(AuthorityError::Read { path: path.to_owned(), source }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the number of a certificate as programs print it: hex digits, with or without colons.
pub fn parse_serial(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|c| *c != ':').collect();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).unwrap_or_default()),
        _ => None,
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    // A serial number has at most 20 bytes (RFC 5280).
    (1..=20).contains(&bytes.len()).then_some(bytes)
}

/// A list names whole seconds. What was said in this one, before the list was made, is older than the revocation, and stays.
fn next_second(now: SystemTime) -> Result<SystemTime, AuthorityError> {
    let since = since_epoch(now)?;
    let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(AuthorityError::Clock)
}

impl Authority {
    /// Makes the next list of revoked certificates in the authority's directory: all that the newest one has, these serial numbers, and
    /// every certificate that was issued to `node`, also that by which it issues.
    ///
    /// # Errors
    /// [`AuthorityError::NothingIssued`] when the book knows no certificate of the node and no number is given,
    /// [`AuthorityError::NothingNew`], [`AuthorityError::ListTooLong`]; otherwise why it could not be read, made or written.
    pub fn revoke(
        &self,
        node: Option<&NodeId>,
        serials: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<MadeList, AuthorityError> {
        let _one_at_a_time = lock(&self.dir)?;
        if now < self.certificate.valid_from() {
            return Err(AuthorityError::Clock);
        }
        let mut new: Vec<Vec<u8>> = serials.to_vec();
        if let Some(node) = node.filter(|_| serials.is_empty()) {
            new = self.issued_to(node)?;
            if new.is_empty() {
                return Err(AuthorityError::NothingIssued { dir: self.dir.clone(), node: node.clone() });
            }
        }
        let (last, mut revoked) = match self.newest_list()? {
            // All that is signed since then would count nowhere any more, and a list never shrinks.
            Some(list) if now < list.made_at => return Err(AuthorityError::Clock),
            Some(list) => (list.number, list.revoked()),
            None => (0, Vec::new()),
        };
        let (before, since) = (revoked.len(), next_second(now)?);
        for serial in new {
            let plain = crate::revocation::plain(&serial).to_vec();
            if !revoked.iter().any(|one| one.serial == plain) {
                revoked.push(ToRevoke { serial: plain, since });
            }
        }
        if revoked.len() == before {
            return Err(AuthorityError::NothingNew { number: last });
        }
        let number = last + 1;
        let next_at = now.checked_add(ISSUING_VALIDITY).ok_or(AuthorityError::Clock)?;
        let der = self.revocation_list(&revoked, ListNumber { number, next_at }, now)?;
        if der.len() > MAX_CRL_BYTES {
            return Err(AuthorityError::ListTooLong { certificates: revoked.len() });
        }
        let path = self.dir.join(format!("{LIST_PREFIX}{number}{LIST_SUFFIX}"));
        write_durably(&path, &der, Access::Public, Existing::Keep)
            .map_err(|source| AuthorityError::Write { what: "the list of revoked certificates", source })?;
        Ok(MadeList { path, number, certificates: revoked.len(), new: revoked.len() - before })
    }

    fn issued_to(&self, node: &NodeId) -> Result<Vec<Vec<u8>>, AuthorityError> {
        let (text, name) = (read(&self.dir.join(BOOK_FILE))?, node.to_string());
        let of_node = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let serial = words.next()?;
            (words.next()? == name).then(|| parse_serial(serial)).flatten()
        });
        Ok(of_node.collect())
    }

    /// Returns the newest list in the directory.
    fn newest_list(&self) -> Result<Option<RevocationList>, AuthorityError> {
        let failed = |source| AuthorityError::Read { path: self.dir.clone(), source };
        let mut newest = None;
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix(LIST_PREFIX)?.strip_suffix(LIST_SUFFIX)?.parse::<u64>().ok()
            });
            newest = newest.max(number);
        }
        let Some(number) = newest else { return Ok(None) };
        let path = self.dir.join(format!("{LIST_PREFIX}{number}{LIST_SUFFIX}"));
        let der = fs::read(&path).map_err(|source| AuthorityError::Read { path: path.clone(), source })?;
        let list = RevocationList::verify(&der, &self.certificate, None);
        list.map(Some).map_err(|source| AuthorityError::List { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{Studio, day_one, node, what},
        revocation::Revoked,
    };

    fn list(studio: &Studio, made: &MadeList) -> RevocationList {
        let der = fs::read(&made.path).unwrap();
        RevocationList::verify(&der, studio.authority.certificate(), None).unwrap()
    }

    #[test]
    fn a_node_is_revoked_by_name_with_all_that_was_issued_to_it_and_lists_grow() {
        let studio = Studio::new("a");
        let identity = studio.identity("ws1@home");
        studio.identity("ws1@home");
        studio.delegate("ws1@home");
        studio.identity("ws2@home");
        let first = studio.authority.revoke(Some(&node("ws1@home")), &[], day_one()).unwrap();
        assert_eq!((first.number, first.certificates, first.new), (1, 3, 3));
        assert!(first.path.ends_with("revoked-1.crl"));
        let mut revoked = Revoked::default();
        revoked.add_list(&list(&studio, &first));
        let check = |chain| revoked.check_chain(chain, studio.authority.certificate());
        assert!(check(identity.certificate_chain()).is_err());
        assert!(check(studio.identity("ws2@home").certificate_chain()).is_ok());

        let later = day_one() + Duration::from_secs(86_400);
        let again = studio.authority.revoke(Some(&node("ws1@home")), &[], later);
        assert!(matches!(again, Err(AuthorityError::NothingNew { number: 1 })), "{again:?}");
        let unknown = studio.authority.revoke(Some(&node("ws9@home")), &[], later);
        assert!(matches!(unknown, Err(AuthorityError::NothingIssued { .. })), "{unknown:?}");
        let second = studio.authority.revoke(None, &[parse_serial("00:0A:0b").unwrap()], later).unwrap();
        assert_eq!((second.number, second.certificates, second.new), (2, 4, 1));
        let (old, new) = (list(&studio, &first), list(&studio, &second));
        assert!(old.revoked().iter().all(|one| new.revoked().contains(one)), "and since when stays");
        assert_eq!(new.to_protocol().revoked.len(), 4);
        let amid_a_second = later + Duration::from_millis(600);
        let third = studio.authority.revoke(None, &[vec![9]], amid_a_second).unwrap();
        let since = list(&studio, &third).revoked().into_iter().map(|one| one.since).max().unwrap();
        assert_eq!(since, later + Duration::from_secs(1), "what was said in that second before stays");
        assert!(new.to_protocol().made_at_ms > old.to_protocol().made_at_ms);
    }

    #[test]
    fn a_clock_that_cannot_be_right_makes_no_list() {
        let studio = Studio::new("a");
        let revoke = |serial, now| studio.authority.revoke(None, &[vec![serial]], now).map(drop);
        let refused = revoke(1, UNIX_EPOCH + Duration::from_secs(86_400));
        assert!(matches!(refused, Err(AuthorityError::Clock)), "{refused:?}");
        revoke(1, day_one() + Duration::from_secs(86_400)).unwrap();
        assert!(matches!(revoke(2, day_one()), Err(AuthorityError::Clock)));
        revoke(2, day_one() + Duration::from_secs(86_401)).unwrap();
    }

    #[test]
    fn what_is_issued_at_one_time_is_all_in_the_book() {
        let studio = Studio::new("a");
        let (dir, node) = (&studio.authority.dir, node("ws1@home"));
        std::thread::scope(|scope| {
            for first in [1, 9, 17, 25] {
                let node = &node;
                scope.spawn(move || (first..first + 8).for_each(|n| note(dir, &[n], node, "node").unwrap()));
            }
        });
        let made = studio.authority.revoke(Some(&node), &[], day_one()).unwrap();
        assert_eq!(made.certificates, 32);
    }

    #[test]
    fn a_list_that_fits_into_no_record_and_one_of_another_authority_are_refused() {
        let (studio, other) = (Studio::new("a"), Studio::new("a"));
        let serials: Vec<Vec<u8>> =
            (0..2000_u32).map(|n| [&[0x40; 12], n.to_be_bytes().as_slice()].concat()).collect();
        let made = studio.authority.revoke(None, &serials, day_one());
        assert!(matches!(made, Err(AuthorityError::ListTooLong { certificates: 2000 })), "{made:?}");
        let most = studio.authority.revoke(None, &serials[..1000], day_one()).unwrap();
        assert!(fs::read(&most.path).unwrap().len() <= MAX_CRL_BYTES);
        let foreign = other.authority.revoke(None, &[vec![7]], day_one()).unwrap();
        let beside = most.path.with_file_name("revoked-9.crl");
        fs::copy(foreign.path, beside).unwrap();
        let made = studio.authority.revoke(None, &[vec![7]], day_one());
        assert!(matches!(made, Err(AuthorityError::List { .. })), "{made:?}");
    }

    #[test]
    fn numbers_of_certificates_are_read_as_programs_print_them() {
        assert_eq!(parse_serial("4A:0f"), Some(vec![0x4a, 0x0f]));
        assert_eq!(parse_serial("4a0F"), Some(vec![0x4a, 0x0f]));
        for bad in ["", "4", "4g", "\u{e4}\u{e4}", &"00".repeat(21)] {
            assert_eq!(parse_serial(bad), None, "{bad}");
        }
        assert_eq!(what("ws1@home").node, node("ws1@home"));
    }
}
