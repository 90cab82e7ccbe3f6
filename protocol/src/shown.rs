//! Names and messages as a terminal may have them: what a file name says can never move the cursor or turn text around.

use std::borrow::Cow;

/// Replaces control characters, and those that are invisible or change the direction of text, by `\u{..}`.
///
/// JSON does not go through here: there the text stays what it is.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            unsafe_one if is_unsafe(unsafe_one) => escaped.extend(unsafe_one.escape_unicode()),
            harmless => escaped.push(harmless),
        }
    }
    Cow::Owned(escaped)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_of_any_language_pass() {
        for name in ["robot_v001.abc", "Änne/羽/дом.exr", "a b'c\"d\\e"] {
            assert!(matches!(escape(name), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn what_would_act_on_the_terminal_or_deceive_the_eye_is_shown_instead() {
        for (hostile, shown) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("gpj\u{202e}exe", "gpj\\u{202e}exe"),
            ("in\u{200b}visible\u{feff}", "in\\u{200b}visible\\u{feff}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{2067}x\u{2069}", "\\u{2067}x\\u{2069}"),
        ] {
            assert_eq!(escape(hostile), shown);
        }
    }
}
