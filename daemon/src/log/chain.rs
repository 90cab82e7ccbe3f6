//! [`ErrorChain`]: an error with all that caused it.

use std::{error::Error, fmt};

/// Shows an error and everything that caused it, as `cannot read a: not allowed: os error 13`.
///
/// Errors of this project leave their source out of their own text. Some of other crates do not; what such a text ends
/// with is not shown a second time.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            let text = source.to_string();
            if !shown.ends_with(&text) {
                write!(f, ": {text}")?;
                shown = text;
            }
            next = source.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot open the catalog")]
    struct Outer(#[source] Middle);

    #[derive(Debug, Error)]
    #[error("cannot read {path}")]
    struct Middle {
        path: &'static str,
        source: std::io::Error,
    }

    #[derive(Debug, Error)]
    #[error("cannot start: {0}")]
    struct Chatty(#[source] std::io::Error);

    fn denied() -> std::io::Error {
        std::io::Error::other("not allowed")
    }

    #[test]
    fn every_cause_is_shown_in_order() {
        let error = Outer(Middle { path: "CURRENT", source: denied() });
        assert_eq!(
            ErrorChain(&error).to_string(),
            "cannot open the catalog: cannot read CURRENT: not allowed"
        );
    }

    #[test]
    fn a_cause_that_is_in_the_text_already_is_shown_once() {
        assert_eq!(ErrorChain(&Chatty(denied())).to_string(), "cannot start: not allowed");
    }
}
