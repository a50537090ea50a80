//! Reading a request.

use std::io::{self, Read};
use std::ops::Range;

/// A range of bytes, not empty.
pub(super) type Span = Range<u64>;

/// A range that lies outside of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsatisfiable;

/// What the server needs of a request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Decoded, without the query.
    pub(super) path: String,
    query: String,
    pub(super) range: Option<String>,
    if_range: Option<String>,
}

/// No header of a browser is as long.
const LONGEST_HEAD: usize = 64 << 10;

impl Request {
    /// Reads a request, body and all; `None` if the client sent nothing or no HTTP.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let read = stream.read(&mut chunk)?;
            if read == 0 || bytes.len() > LONGEST_HEAD {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk[..read]);
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let Some(request) = Self::parse(&head) else { return Ok(None) };
        // A body is of no use here, but closing a connection with unread bytes in it would reset it.
        let announced = header(&head, "content-length").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let rest = announced.saturating_sub((bytes.len() - end - 4) as u64);
        io::copy(&mut stream.take(rest), &mut io::sink())?;
        Ok(Some(request))
    }

    fn parse(head: &str) -> Option<Self> {
        let mut words = head.lines().next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        words.next().filter(|version| version.starts_with("HTTP/1."))?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Self {
            method: method.into(),
            path: decode(path)?,
            query: query.into(),
            range: header(head, "range").map(str::to_owned),
            if_range: header(head, "if-range").map(str::to_owned),
        })
    }

    /// A parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    }

    /// The bytes asked for, of a file with a length and an entity tag; `None` is the whole file, also for several
    /// ranges at once, for what is no range of bytes, and if the file is not the one that `If-Range` means.
    pub(super) fn span(&self, len: u64, etag: &str) -> Result<Option<Span>, Unsatisfiable> {
        let Some(range) = &self.range else { return Ok(None) };
        if self.if_range.as_ref().is_some_and(|wanted| wanted != etag) {
            return Ok(None);
        }
        let Some((from, to)) = range.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
            return Ok(None);
        };
        let span = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
            (Ok(from), Ok(to)) if from <= to => from..to.saturating_add(1).min(len),
            (Ok(from), Err(_)) if to.trim().is_empty() => from..len,
            (Err(_), Ok(last)) if from.trim().is_empty() => len.saturating_sub(last)..len,
            _ => return Ok(None),
        };
        if span.is_empty() { Err(Unsatisfiable) } else { Ok(Some(span)) }
    }
}

/// The value of a header.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    pairs.filter(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// Replaces `%20` and the like; `None` if what comes out is no text.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranged(range: &str) -> Request {
        let text = format!("GET /a%20b/c?since=3&x=y HTTP/1.1\r\nHost: h\r\nrAnGe: {range}\r\n\r\n");
        Request::read(&mut text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn requests_are_read() {
        let request = ranged("bytes=0-1");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/a b/c"));
        assert_eq!((request.query("since"), request.query("none")), (Some("3"), None));
        for bad in ["", "GET\r\n\r\n", "GET / \r\n\r\n", "GET /%zz HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n"] {
            assert!(Request::read(&mut bad.as_bytes()).unwrap().is_none(), "{bad:?}");
        }
        let endless = "GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(20_000);
        assert!(Request::read(&mut endless.as_bytes()).unwrap().is_none());
        let mut with_body = &b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhellomore"[..];
        assert_eq!(Request::read(&mut with_body).unwrap().unwrap().method, "POST");
    }

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (range, wanted) in [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=2-5", Ok(Some(2..6))),
            ("bytes=2-99", Ok(Some(2..10))),
            ("bytes=4-", Ok(Some(4..10))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=-99", Ok(Some(0..10))),
            ("bytes=10-", Err(Unsatisfiable)),
            ("bytes=-0", Err(Unsatisfiable)),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,4-5", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("bytes=0-18446744073709551615", Ok(Some(0..10))),
        ] {
            assert_eq!(ranged(range).span(10, "\"e\""), wanted, "{range}");
        }
        let mut request = ranged("bytes=0-1");
        request.if_range = Some("\"e\"".into());
        assert_eq!(request.span(10, "\"e\""), Ok(Some(0..2)));
        assert_eq!(request.span(10, "\"other\""), Ok(None), "another file: all of it");
    }
}
