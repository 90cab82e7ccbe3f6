//! What came of an input, without what differs from one input to the next.

use std::fmt::Debug;

/// What a decoder made of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused with a typed error, whose shape this is.
    Refused(String),
    /// It was accepted; this is the shape of what was read.
    Accepted(String),
}

impl Outcome {
    /// Describes a refusal by its error.
    pub fn refused(error: &impl Debug) -> Self {
        Self::Refused(shape(error))
    }

    /// Takes a result whose value is described by `of`.
    pub fn of<T, E: Debug>(result: Result<T, E>, of: impl FnOnce(T) -> String) -> Self {
        match result {
            Ok(value) => Self::Accepted(of(value)),
            Err(error) => Self::refused(&error),
        }
    }

    /// Puts a word in front, such as the decoder's name.
    #[must_use]
    pub fn by(self, word: &str) -> Self {
        match self {
            Self::Refused(shape) => Self::Refused(format!("{word}: {shape}")),
            Self::Accepted(shape) => Self::Accepted(format!("{word}: {shape}")),
        }
    }

    /// Says whether it was accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

/// Writes a value without its texts, numbers and hashes: at most 200 characters.
pub fn shape(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let (mut shape, mut in_text) = (String::new(), false);
    // What stands between quotes has no unescaped quotes in it.
    for piece in text.replace("\\\\", "").replace("\\\"", "").split('"') {
        if !in_text {
            words(piece, &mut shape);
        }
        in_text = !in_text;
        if shape.len() >= 200 {
            break;
        }
    }
    shape
}

fn words(text: &str, shape: &mut String) {
    for word in text.split_inclusive(|character: char| !character.is_ascii_alphanumeric()) {
        if word.contains(|character: char| character.is_ascii_digit()) {
            shape.push('#');
            shape.extend(word.chars().last().filter(|last| !last.is_ascii_alphanumeric()));
        } else {
            shape.push_str(word);
        }
    }
}

/// Rounds a count so that few different ones are left: 0, 1, 2, and then powers of four.
pub fn about(count: usize) -> usize {
    match count {
        0..=2 => count,
        _ => 1 << (2 * (count.ilog2() / 2)),
    }
}
