//! Faults that a path asks for: `/fault/slow/100/fault/truncate/5000/models/...`.

use std::collections::HashMap;

/// Whether pages of another origin may read the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cors {
    /// No `Access-Control-Allow-Origin`.
    #[default]
    Refused,
    /// They may, but see only the headers that every page may see: not `Content-Range`.
    Unexposed,
    /// They may, and see `Content-Range`, `ETag` and the like.
    Allowed,
}

/// What goes wrong with a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// `/cors/`, `/cors-unexposed/`.
    pub(super) cors: Cors,
    /// `/fault/status/404/`: this status instead of the file.
    pub(super) status: Option<u16>,
    /// `/fault/truncate/1000/`: the connection closes after so many bytes of the body.
    pub(super) truncate: Option<u64>,
    /// `/fault/flaky/2/id/`: the first two responses of this id end halfway.
    pub(super) flaky: Option<(u32, String)>,
    /// `/fault/norange/`: `Range` is ignored.
    pub(super) no_range: bool,
    /// `/fault/corrupt/1000/`: a bit of the byte at this offset of the file is flipped.
    pub(super) corrupt: Option<u64>,
    /// `/fault/slow/100/`.
    pub(super) kilobytes_per_second: Option<u64>,
    /// `/fault/hang/`: headers, then nothing.
    pub(super) hang: bool,
    /// `/fault/redirect/`: to the same path below `/cors/` of the second origin.
    pub(super) redirect: bool,
}

impl Fault {
    /// Takes the faults off a path; returns them and the path that is left.
    pub(super) fn parse(path: &str) -> Result<(Self, &str), String> {
        let mut fault = Self::default();
        let mut rest = path;
        loop {
            if let Some(tail) = after(rest, "/cors") {
                (fault.cors, rest) = (Cors::Allowed, tail);
            } else if let Some(tail) = after(rest, "/cors-unexposed") {
                (fault.cors, rest) = (Cors::Unexposed, tail);
            } else if let Some(tail) = after(rest, "/fault") {
                rest = fault.take(tail)?;
            } else {
                return Ok((fault, rest));
            }
        }
    }

    /// Takes one fault: `/slow/100/models/...` leaves `/models/...`.
    fn take<'a>(&mut self, path: &'a str) -> Result<&'a str, String> {
        let mut rest = path;
        let mut part = || -> &'a str {
            let (part, tail) = rest[1..].find('/').map_or((&rest[1..], "/"), |at| rest[1..].split_at(at));
            rest = tail;
            part
        };
        match part() {
            "status" => self.status = Some(number(part())?),
            "truncate" => self.truncate = Some(number(part())?),
            "flaky" => self.flaky = Some((number(part())?, part().to_owned())),
            "norange" => self.no_range = true,
            "corrupt" => self.corrupt = Some(number(part())?),
            "slow" => self.kilobytes_per_second = Some(number(part())?),
            "hang" => self.hang = true,
            "redirect" => self.redirect = true,
            other => {
                return Err(format!(
                    "found the fault {other:?}, wanted status, truncate, flaky, norange, corrupt, slow, hang \
                     or redirect\n"
                ));
            }
        }
        Ok(rest)
    }
}

/// What follows a first part of a path, with its slash.
fn after<'a>(path: &'a str, part: &str) -> Option<&'a str> {
    path.strip_prefix(part).filter(|rest| rest.starts_with('/'))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("found {text:?}, wanted a number\n"))
}

/// How often each id has failed.
#[derive(Debug, Default)]
pub(super) struct Flaky(HashMap<String, u32>);

impl Flaky {
    /// Whether this response fails: the first `times` of an id do.
    pub(super) fn fails(&mut self, id: &str, times: u32) -> bool {
        let failed = self.0.entry(id.to_owned()).or_default();
        let fails = *failed < times;
        *failed += u32::from(fails);
        fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_stand_before_the_path() {
        let parse = |path| Fault::parse(path).unwrap();
        assert_eq!(parse("/models/a"), (Fault::default(), "/models/a"));
        assert_eq!(parse("/faults/a"), (Fault::default(), "/faults/a"));
        assert_eq!(parse("/corsica/a"), (Fault::default(), "/corsica/a"));
        let (fault, path) = parse("/cors/fault/slow/100/fault/flaky/2/id/fault/norange/models/a/");
        assert_eq!(path, "/models/a/");
        assert_eq!(fault.cors, Cors::Allowed);
        assert_eq!(fault.kilobytes_per_second, Some(100));
        assert_eq!(fault.flaky, Some((2, "id".into())));
        assert!(fault.no_range && !fault.hang);
        assert_eq!(parse("/fault/status/404").1, "/");
    }

    #[test]
    fn faults_that_are_none_are_refused() {
        for path in ["/fault/", "/fault/slwo/1/a", "/fault/slow/fast/a", "/fault/status/70000/a"] {
            assert!(Fault::parse(path).unwrap_err().contains("wanted"), "{path}");
        }
    }
}
