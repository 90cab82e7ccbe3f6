//! Somebody applies a policy: it gets the next serial that this node knows of, and a record in its own feed of the studio.

use avalon_protocol::{id::ProjectName, record::Record, studio::AppliedPolicy};

use super::SimNode;
use crate::{env::Env, event::Note};

impl SimNode {
    /// Applies a policy whose text is a number.
    pub(super) fn apply_policy(&mut self, text: u64, env: &mut Env) -> bool {
        if self.disk.full {
            return false;
        }
        let serial = self.disk.ledger.policy().serial() + 1;
        let applied_at_ms = env.clock_ms(self.ahead_ms);
        let policy =
            AppliedPolicy::new(serial, text.to_string(), self.id.to_string(), String::new(), applied_at_ms);
        let record = Record::Policy(policy.expect("it is short"));
        env.note(&Note::Applied(self.who.node, serial));
        self.record(&ProjectName::studio(), record.to_raw(), None, env);
        true
    }

    /// Notes where two policies have the serial that stands.
    pub(super) fn note_rivals(&self, env: &mut Env) {
        let policy = self.disk.ledger.policy();
        if policy.rivals().next().is_some() {
            env.note(&Note::AppliedTwice(self.who.node, policy.serial()));
        }
    }
}
