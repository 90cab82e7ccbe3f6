//! Server-sent events: the text of a stream into messages.
//!
//! What the HTML standard says of `event-stream`, as far as the daemon uses it: `id:`, `event:` and `data:` lines, and an
//! empty line that ends a message. Comments keep a connection alive and are dropped.

use std::collections::VecDeque;

use avalon_protocol::control::Event;

/// The longest message that is read; a longer one is dropped and the stream goes on.
///
/// The largest event is a publish that was refused for every file of a version.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The `id:` line.
    pub id: Option<String>,
    /// The `event:` line.
    pub event: Option<String>,
    /// The `data:` lines, joined by line breaks.
    pub data: String,
}

impl Message {
    /// Reads the event in it; `None` for one that this version does not know.
    pub fn decode(&self) -> Option<Event> {
        serde_json::from_str(&self.data).ok()
    }
}

/// Cuts a stream of bytes into messages. The cuts of the input do not matter.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    message: Message,
    has_data: bool,
    is_oversized: bool,
    ends_with_return: bool,
    ready: VecDeque<Message>,
}

impl Parser {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // A line ends with \n, \r or both.
            let is_second_half = byte == b'\n' && self.ends_with_return;
            self.ends_with_return = byte == b'\r';
            match byte {
                _ if is_second_half => {}
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() + self.message.data.len() >= MAX_MESSAGE_BYTES => {
                    self.is_oversized = true
                }
                _ => self.line.push(byte),
            }
        }
    }

    /// Returns the next whole message.
    pub fn pop(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            let (has_data, is_oversized) =
                (std::mem::take(&mut self.has_data), std::mem::take(&mut self.is_oversized));
            if has_data && !is_oversized {
                self.ready.push_back(message);
            }
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
                self.has_data = true;
            }
            "id" => self.message.id = Some(value.to_owned()),
            "event" => self.message.event = Some(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::EventKind;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<Message> {
        let mut parser = Parser::default();
        chunks.iter().for_each(|chunk| parser.feed(chunk));
        std::iter::from_fn(|| parser.pop()).collect()
    }

    fn message(id: Option<&str>, event: Option<&str>, data: &str) -> Message {
        Message { id: id.map(str::to_owned), event: event.map(str::to_owned), data: data.to_owned() }
    }

    #[test]
    fn messages_have_id_event_and_data_and_comments_are_dropped() {
        let text =
            b":hello\n\nid: 7\nevent: placed\ndata: {\"a\":1}\n\ndata:x\ndata: y\nretry: 3\n\nid: 9\n\n";
        assert_eq!(
            parse(&[text]),
            [message(Some("7"), Some("placed"), "{\"a\":1}"), message(None, None, "x\ny")],
            "a message without data is none"
        );
    }

    #[test]
    fn every_cut_and_every_line_ending_gives_the_same_messages() {
        let expected = [message(Some("1"), None, "é"), message(None, None, "b")];
        for ending in ["\n", "\r\n", "\r"] {
            let text = ["id: 1", "data: é", "", "data: b", "", ""].join(ending);
            for cut in 0..text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                assert_eq!(parse(&[one, other]), expected, "{ending:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn an_unfinished_message_is_held_back_and_a_huge_one_is_dropped() {
        assert!(parse(&[b"data: half\n"]).is_empty());
        let huge =
            [b"data: ".as_slice(), &vec![b'x'; MAX_MESSAGE_BYTES + 10], b"\n\ndata: next\n\n"].concat();
        assert_eq!(parse(&[&huge]), [message(None, None, "next")]);
    }

    #[test]
    fn the_data_is_an_event_and_one_of_a_newer_daemon_is_none() {
        let text = r#"{"id":3,"time":"2026-11-22T10:00:00Z","event":"solved","code":"root-missing"}"#;
        let event = message(None, None, text).decode().unwrap();
        assert_eq!(event.kind, EventKind::Solved { code: "root-missing".into() });
        assert_eq!(message(None, None, r#"{"id":3,"time":"x","event":"levitated"}"#).decode(), None);
    }
}
