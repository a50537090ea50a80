//! How short a match of a regular expression can be, and what its repetitions cost.

/// Atoms of a pattern, each as often as it is repeated at most.
const MAX_SIZE: usize = 8192;
/// Groups within groups that are looked into.
const MAX_DEPTH: u32 = 64;

/// Bounds what a regular expression costs: its length with all numbers of repetitions written out.
///
/// # Errors
/// A pattern beyond the bound.
pub(super) fn repeats(regex: &str) -> Result<(), String> {
    let mut pattern = Pattern { rest: regex, unclear: false };
    let mut size = 0usize;
    // What follows a bracket that closes nothing counts too.
    loop {
        size = size.saturating_add(pattern.branches(0).size);
        if !pattern.take(")") {
            break;
        }
    }
    if size > MAX_SIZE {
        let start: String = regex.chars().take(100).collect();
        return Err(format!(
            "the repetitions of {start:?} written out have {size} parts, must have at most {MAX_SIZE}"
        ));
    }
    Ok(())
}

/// Characters that a match has at least; 0 where that is not clear.
pub(super) fn least(regex: &str) -> usize {
    let mut pattern = Pattern { rest: regex, unclear: false };
    let least = pattern.branches(0).least;
    // A bracket that closes nothing.
    if pattern.unclear || !pattern.rest.is_empty() { 0 } else { least }
}

/// Characters that a part matches at least, and its atoms as often as they are repeated.
#[derive(Clone, Copy)]
struct Part {
    least: usize,
    size: usize,
}

struct Pattern<'a> {
    rest: &'a str,
    unclear: bool,
}

impl Pattern<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Drops what comes up to a character, and the character.
    fn skip_past(&mut self, end: char) {
        match self.rest.split_once(end) {
            Some((_, rest)) => self.rest = rest,
            None => self.unclear = true,
        }
    }

    /// Up to a bracket that closes a group, which stays.
    fn branches(&mut self, depth: u32) -> Part {
        if depth > MAX_DEPTH {
            // The crate refuses it as well.
            self.unclear = true;
            self.rest = "";
        }
        let (mut least, mut branch, mut size) = (usize::MAX, 0usize, 0usize);
        while !self.rest.starts_with(')') {
            if self.take("|") {
                least = least.min(branch);
                branch = 0;
                continue;
            }
            let Some(c) = self.next() else { break };
            let atom = self.atom(c, depth);
            let (times, most) = self.times();
            branch = branch.saturating_add(atom.least.saturating_mul(times));
            size = size.saturating_add(atom.size.saturating_mul(most));
        }
        Part { least: least.min(branch), size }
    }

    fn atom(&mut self, c: char, depth: u32) -> Part {
        let least = match c {
            '(' => return self.group(depth),
            '[' => self.class(),
            '\\' => match self.next() {
                Some('p' | 'P' | 'x' | 'u' | 'U') => {
                    if self.take("{") {
                        self.skip_past('}');
                    }
                    1
                }
                // Borders and references; what else has no width is rare.
                Some('b' | 'B' | 'A' | 'z' | 'Z' | 'G' | 'K' | 'k' | '0'..='9') | None => 0,
                Some(_) => 1,
            },
            '^' | '$' => 0,
            _ => 1,
        };
        Part { least, size: 1 }
    }

    fn group(&mut self, depth: u32) -> Part {
        let mut width = 1;
        if self.take("?") {
            if ["=", "!", "<=", "<!"].iter().any(|look| self.take(look)) {
                width = 0;
            } else if self.take("P<") || self.take("<") {
                self.skip_past('>');
            } else {
                let flags = self.rest.find([':', ')']).map_or("", |end| &self.rest[..end]);
                // Spaces and comments without width.
                self.unclear |= flags.contains(['x', '#', '(']);
                self.rest = &self.rest[flags.len()..];
                self.take(":");
            }
        }
        let inside = self.branches(depth + 1);
        self.unclear |= !self.take(")");
        Part { least: width * inside.least, size: inside.size.saturating_add(1) }
    }

    fn class(&mut self) -> usize {
        self.take("^");
        self.take("]");
        let mut open = 1u32;
        while open > 0 {
            match self.next() {
                Some('\\') => drop(self.next()),
                Some('[') => open += 1,
                Some(']') => open -= 1,
                Some(_) => {}
                None => {
                    self.unclear = true;
                    return 0;
                }
            }
        }
        1
    }

    /// How often the atom before is repeated at least, and the largest number of that.
    fn times(&mut self) -> (usize, usize) {
        let (mut times, mut most) = (1usize, 1usize);
        loop {
            let any = self.take("*") || self.take("?");
            if any {
                times = 0;
            } else if self.take("+") {
                // Once or more.
            } else if let Some((inside, rest)) = self.rest.strip_prefix('{').and_then(|r| r.split_once('}'))
                && inside.bytes().all(|b| b.is_ascii_digit() || b", ".contains(&b))
            {
                self.rest = rest;
                let numbers = inside.split(',').map(str::trim).filter(|n| !n.is_empty());
                let largest = numbers.map(|n| n.parse().unwrap_or(usize::MAX)).max().unwrap_or(1);
                most = most.saturating_mul(largest.max(1));
                let first = inside.split(',').next().unwrap_or_default().trim();
                times = times.saturating_mul(first.parse().unwrap_or(0));
            } else {
                return (times, most);
            }
            // Lazy or possessive.
            if !self.take("?") {
                self.take("+");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_matches() {
        for (regex, want) in [
            ("", 0),
            ("a", 1),
            ("▁é", 2),
            ("a|", 0),
            ("ab|c", 1),
            ("x*", 0),
            ("x?y", 1),
            ("x+", 1),
            (" {2,}", 2),
            (r"\s{1,3}", 1),
            ("(ab){2}", 4),
            ("(?:ab|c)+?", 1),
            ("(?=a)|b*", 0),
            ("(?<=a)b", 1),
            ("(?<!a)", 0),
            (r"\b", 0),
            (r"^\s*$", 0),
            (r"[^\]a]b", 2),
            ("[]a]", 1),
            ("[[:alpha:]]", 1),
            (r"\p{L}\x{2581}", 2),
            ("(?i:ab)", 2),
            ("(?P<n>a)(?<m>b)", 2),
            ("(?x) a", 0),
            ("(a", 0),
            ("[a", 0),
            (r"(a)\1", 1),
            ("a{,3}", 0),
            ("a++", 1),
        ] {
            assert_eq!(least(regex), want, "{regex}");
        }
        for fits in
            [r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}", "(?:a{16}){16}", r"\x{9999}[{99999}]"]
        {
            assert_eq!(repeats(fits), Ok(()), "{fits}");
        }
        for costs in [
            "a{9000}",
            "(?x)a{9000}",
            "(?:a{100}){100}",
            ")a{9000}",
            "(?:(?=a)){1000000000}",
            "a{99999999999999999999}",
        ] {
            assert!(repeats(costs).is_err(), "{costs}");
        }
        assert_eq!(least(&("(".repeat(1000) + "a" + &")".repeat(1000))), 0, "too deep to look into");
    }
}
