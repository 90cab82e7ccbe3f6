//! Reading a feed back that was checked group by group when it came.

use super::{FeedError, FeedId, FeedReader, SealedGroup, certificate_in};
use crate::signing::RecordTrust;

/// Reads a feed back whose groups were all accepted before, each with its signature.
///
/// A group names the hash of all before it, so a signature vouches for all of them: that of the last group is checked, and those of the first and the last one
/// under each certificate. A feed of a film has a hundred thousand groups, and a signature takes longer than all else about one.
#[derive(Debug, Clone)]
pub struct FeedRereader {
    reader: FeedReader,
    /// The last group, as long as nothing vouches for it.
    open: Option<SealedGroup>,
}

impl FeedRereader {
    /// Starts at the beginning of a feed.
    pub fn new(feed: FeedId) -> Self {
        Self { reader: FeedReader::new(feed), open: None }
    }

    /// Returns the reader where it stands. What it has read is known to be right only after [`FeedRereader::finish`].
    pub fn reader(&self) -> &FeedReader {
        &self.reader
    }

    /// Checks that `group` follows, and moves on behind it.
    ///
    /// # Errors
    /// [`FeedError`], also about the group before it; the reader has not moved then.
    pub fn accept(&mut self, group: SealedGroup, trust: &dyn RecordTrust) -> Result<(), FeedError> {
        let body = self.reader.accept_body(&group)?;
        match self.reader.signed_by.filter(|_| certificate_in(&body).is_none()) {
            Some(certified) => {
                self.reader.check_place(&body)?;
                self.reader.advance(&body, group.chain(), certified);
                self.open = Some(group);
            }
            None => {
                self.check(trust)?;
                self.reader.accept(&group, trust)?;
                self.open = None;
            }
        }
        Ok(())
    }

    /// Returns the reader behind all that was read, once something vouches for it.
    ///
    /// # Errors
    /// As [`FeedRereader::check`].
    pub fn finish(self, trust: &dyn RecordTrust) -> Result<FeedReader, FeedError> {
        self.check(trust)?;
        Ok(self.reader)
    }

    /// Checks what vouches for all that was read up to here.
    ///
    /// # Errors
    /// [`FeedError::Signature`].
    pub fn check(&self, trust: &dyn RecordTrust) -> Result<(), FeedError> {
        let (Some(group), Some(certified)) = (&self.open, self.reader.signed_by) else { return Ok(()) };
        match self.reader.check_signature(group, &certified, trust) {
            Some(_) => Ok(()),
            None => Err(FeedError::Signature {
                feed: self.reader.feed.clone(),
                seq: group.claimed_start().unwrap_or_default(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{
        super::tests::{Toy, feed, placed},
        *,
    };
    use crate::{
        id::NodeId,
        signing::{
            CertificateList, Certified, PublicKey, RecordSigner as _, Signature, UntrustedCertificate,
            UntrustedList,
        },
    };

    thread_local! {
        static VERIFIED: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts what is verified in this thread.
    #[derive(Debug)]
    struct Counting(Toy);

    impl RecordTrust for Counting {
        fn prove(&self, certificate: &[u8], owner: &NodeId) -> Result<Certified, UntrustedCertificate> {
            self.0.prove(certificate, owner)
        }

        fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
            VERIFIED.set(VERIFIED.get() + 1);
            self.0.verify(key, message, signature)
        }

        fn certificate_list(&self, der: &[u8]) -> Result<CertificateList, UntrustedList> {
            self.0.certificate_list(der)
        }
    }

    fn key(number: u8) -> Toy {
        Toy(format!("ws1@london key {number}").into_bytes())
    }

    /// Seals as many groups under each of these keys, one after the other.
    fn groups(keys: &[u8], each: u8) -> Vec<SealedGroup> {
        let mut reader = FeedReader::new(feed());
        let mut groups = Vec::new();
        for number in keys {
            for record in 0..each {
                let group = reader.seal(vec![placed(record)], 1000, &key(*number), &key(*number));
                reader.accept(&group, &key(*number)).unwrap();
                groups.push(group);
            }
        }
        groups
    }

    fn reread(groups: &[SealedGroup]) -> Result<FeedReader, FeedError> {
        let mut rereader = FeedRereader::new(feed());
        let trust = Counting(key(1));
        groups.iter().try_for_each(|group| rereader.accept(group.clone(), &trust))?;
        rereader.finish(&trust)
    }

    #[test]
    fn what_was_checked_once_costs_a_signature_for_each_certificate() {
        let groups = groups(&[1, 2], 100);
        let mut each = FeedReader::new(feed());
        groups.iter().for_each(|group| drop(each.accept(group, &key(1)).unwrap()));
        VERIFIED.set(0);
        let reader = reread(&groups).unwrap();
        assert_eq!(VERIFIED.get(), 4, "the first and the last under each");
        assert_eq!(
            (reader.head(), reader.certified(), reader.role()),
            (each.head(), each.certified(), each.role())
        );
    }

    #[test]
    fn whoever_writes_other_records_into_the_history_is_found_whatever_else_they_change() {
        let whole = groups(&[1, 2], 5);
        for at in 1..whole.len() {
            // Without the key: everything from there on is made anew so that it follows, and signed by somebody else.
            let mut reader = FeedReader::new(feed());
            let mut forged = whole.clone();
            for (index, group) in forged.iter_mut().enumerate() {
                let number = if index < 5 { 1 } else { 2 };
                if index >= at {
                    let mut made = reader.seal(vec![placed(99)], 1000, &key(number), &key(number));
                    // It follows, and is signed by nobody.
                    let good = made.clone();
                    made.signature = key(7).sign(b"something else").as_bytes().to_vec();
                    *group = made;
                    reader.accept(&good, &key(number)).unwrap();
                } else {
                    reader.accept(group, &key(number)).unwrap();
                }
            }
            let refused = reread(&forged);
            assert!(matches!(refused, Err(FeedError::Signature { .. })), "from group {at}: {refused:?}");
            // One group alone no longer fits to what follows.
            let mut one = whole.clone();
            one[at] = forged[at].clone();
            assert!(reread(&one).is_err(), "group {at}");
        }
    }
}
