//! As much DNS (RFC 1035) as a real UDP service needs here: one question, one TXT answer.

/// Bytes of the fixed header.
const HEADER: usize = 12;
/// TXT, class IN.
const TXT_IN: [u8; 4] = [0, 16, 0, 1];

/// A query for `label.test. TXT` under `id`. `label` has 1–63 letters or digits.
#[must_use]
pub fn query(id: u16, label: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for part in [label, "test"] {
        out.push(u8::try_from(part.len()).unwrap_or(63));
        out.extend(part.bytes());
    }
    out.push(0);
    out.extend(TXT_IN);
    out
}

/// The answer to `query` with `text` (at most 255 bytes) as its TXT; `None` if it is no query.
#[must_use]
pub fn answer(query: &[u8], text: &str) -> Option<Vec<u8>> {
    let is_query = query.len() >= HEADER && query[2] & 0x80 == 0 && query[4..6] == [0, 1];
    if !is_query {
        return None;
    }
    let length = u8::try_from(text.len()).ok()?;
    let mut out = query.to_vec();
    out[2] |= 0x84; // response, authoritative
    out[7] = 1; // one answer
    out.extend([0xc0, 0x0c]); // its name: that of the question
    out.extend(TXT_IN);
    out.extend([0, 0, 0, 0]); // no caching
    out.extend((u16::from(length) + 1).to_be_bytes());
    out.push(length);
    out.extend(text.bytes());
    Some(out)
}

/// Id and TXT of an answer made by [`answer`].
#[must_use]
pub fn read_answer(bytes: &[u8]) -> Option<(u16, String)> {
    if bytes.len() < HEADER || bytes[2] & 0x80 == 0 || bytes[6..8] != [0, 1] {
        return None;
    }
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        if length == 0 {
            break;
        }
    }
    // Question's type and class, then the answer: name 2, type 2, class 2, ttl 4, length 2.
    let text_at = at + 4 + 12;
    let length = usize::from(*bytes.get(text_at)?);
    let text = bytes.get(text_at + 1..text_at + 1 + length)?;
    Some((id, String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_under_its_id() {
        let asked = query(0xbeef, "q17");
        let got = answer(&asked, "s2").unwrap();
        assert_eq!(read_answer(&got), Some((0xbeef, "s2".into())));
    }

    #[test]
    fn answers_and_fragments_are_no_queries() {
        let got = answer(&query(1, "a"), "s1").unwrap();
        assert_eq!(answer(&got, "again"), None);
        for cut in 0..got.len() {
            assert_eq!(read_answer(&got[..cut]), None, "{cut} bytes");
        }
    }
}
