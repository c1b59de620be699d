//! What an HTTP answer must be: a status, or a status of 200–399 and a text in the body.

use std::ops::RangeInclusive;

/// Bytes of a body that are searched for a text.
pub const BODY_BYTES: usize = 64 * 1024;

/// What is expected of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A status in one of these ranges.
    Status(Vec<RangeInclusive<u16>>),
    /// A status of 200–399, and this text within the first [`BODY_BYTES`] of the body.
    Text(Vec<u8>),
}

impl Expect {
    /// Reads `expect` of the configuration: `""` is 200–399, `"200"`, `"200-399"` and lists of them (`"200,204"`) are
    /// statuses, everything else is a text.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Status(vec![200..=399]);
        }
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map_or_else(|| Self::Text(text.into()), Self::Status)
    }

    /// Is the status right?
    pub fn status(&self, status: u16) -> bool {
        match self {
            Self::Status(ranges) => ranges.iter().any(|r| r.contains(&status)),
            Self::Text(_) => (200..=399).contains(&status),
        }
    }
}

fn range(part: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.trim().parse().ok().filter(|s| (100..=599).contains(s));
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

/// Looks for a text in a body that comes in pieces.
#[derive(Debug)]
pub struct Search<'a> {
    text: &'a [u8],
    body: Vec<u8>,
}

impl<'a> Search<'a> {
    /// A search for `text`; an empty one is found at once.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, body: Vec::new() }
    }

    /// Takes the next piece. `Some(true)`: found; `Some(false)`: not within [`BODY_BYTES`]; `None`: more, please.
    pub fn piece(&mut self, piece: &[u8]) -> Option<bool> {
        // The text may lie across the border of two pieces.
        let from = self.body.len().saturating_sub(self.text.len().saturating_sub(1));
        let room = BODY_BYTES - self.body.len();
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
        if self.text.is_empty() || self.body[from..].windows(self.text.len()).any(|w| w == self.text) {
            return Some(true);
        }
        (self.body.len() == BODY_BYTES).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_texts() {
        assert_eq!(Expect::parse(""), Expect::Status(vec![200..=399]));
        assert_eq!(Expect::parse("200"), Expect::Status(vec![200..=200]));
        assert_eq!(Expect::parse("200-299, 404"), Expect::Status(vec![200..=299, 404..=404]));
        for text in ["ok", "200 ok", "2000", "99", "300-200", "200-", "-200", "200,,204"] {
            assert_eq!(Expect::parse(text), Expect::Text(text.into()), "{text}");
        }
        assert!(Expect::parse("200-299,404").status(404) && !Expect::parse("200-299,404").status(304));
        assert!(Expect::parse("ok").status(204) && !Expect::parse("ok").status(503));
    }

    #[test]
    fn a_text_is_found_across_pieces_and_not_beyond_the_limit() {
        let mut search = Search::new(b"alive");
        assert_eq!(search.piece(b"I am al"), None);
        assert_eq!(search.piece(b""), None);
        assert_eq!(search.piece(b"ive!"), Some(true));
        let mut search = Search::new(b"alive");
        assert_eq!(search.piece(&[b'x'; BODY_BYTES - 4]), None);
        assert_eq!(search.piece(b"alive"), Some(false));
        let mut search = Search::new(b"alive");
        assert_eq!(search.piece(&[b'x'; BODY_BYTES - 5]), None);
        assert_eq!(search.piece(b"alive"), Some(true));
        assert_eq!(Search::new(b"").piece(b""), Some(true));
    }
}
