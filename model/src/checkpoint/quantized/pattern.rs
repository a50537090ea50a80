//! The regular expressions with which compressed-tensors names modules: literals, `.`, `[a-z]`, `\d`, `\w`, groups,
//! `|`, `*`, `+`, `?`, `^`, `$`. Matched from the beginning, as Python's `re.match` does.
//!
//! All ways through a pattern are followed at the same time (Thompson, "Regular Expression Search Algorithm", 1968):
//! time is at most the length of the name times that of the pattern, and nothing recurses along the name.

/// Bytes of the longest pattern and the longest name.
pub(super) const MAX_LEN: usize = 1024;

/// Steps for all modules of a checkpoint together: hundreds of times what published ones need.
pub(super) const FUEL: u64 = 1 << 29;

/// A parsed pattern: the steps of a machine that is in several of them at once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Takes a character that is in the ranges, or not in them, and goes on to the next step.
    Class(Vec<(char, char)>, bool),
    /// Goes on to both.
    Split(usize, usize),
    /// Goes on to the next step at the beginning of the name.
    Start,
    /// The same at its end.
    End,
    Match,
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    node: Node,
    /// Whether it may be left out.
    optional: bool,
    /// Whether it may be repeated.
    repeated: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Ranges of characters, or all but those.
    Class(Vec<(char, char)>, bool),
    Group(Vec<Vec<Item>>),
    Start,
    End,
}

impl Pattern {
    /// `None`: syntax that is not known here, or more than [`MAX_LEN`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LEN {
            return None;
        }
        let chars: Vec<char> = text.chars().collect();
        let (all, end) = alternatives(&chars, 0, 0)?;
        if end != chars.len() {
            return None;
        }
        let mut steps = Vec::new();
        compile(&all, &mut steps);
        steps.push(Step::Match);
        Some(Self(steps))
    }

    /// Whether the name begins with something that the pattern describes; `None` where the fuel does not last.
    pub(super) fn matches(&self, name: &str, fuel: &mut u64) -> Option<bool> {
        *fuel = fuel.checked_sub(16 + self.0.len() as u64 / 8)?;
        let mut chars = name.chars();
        let (mut now, mut next, mut pending) = (vec![0], Vec::new(), Vec::new());
        // The place at which a step was last gone to.
        let mut seen = vec![usize::MAX; self.0.len()];
        for at in 0.. {
            let c = chars.next();
            pending.append(&mut now);
            while let Some(step) = pending.pop() {
                *fuel = fuel.checked_sub(1)?;
                if std::mem::replace(&mut seen[step], at) == at {
                    continue;
                }
                match &self.0[step] {
                    Step::Match => return Some(true),
                    Step::Split(a, b) => pending.extend([*a, *b]),
                    Step::Start if at == 0 => pending.push(step + 1),
                    Step::End if c.is_none() => pending.push(step + 1),
                    Step::Start | Step::End => {}
                    Step::Class(ranges, not) => {
                        if c.is_some_and(|c| ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *not) {
                            next.push(step + 1);
                        }
                    }
                }
            }
            if c.is_none() || next.is_empty() {
                break;
            }
            std::mem::swap(&mut now, &mut next);
        }
        Some(false)
    }
}

/// Appends steps that go through one of these sequences and on to whatever is appended next.
fn compile(all: &[Vec<Item>], steps: &mut Vec<Step>) {
    let mut ends = Vec::new();
    for (i, items) in all.iter().enumerate() {
        let split = steps.len();
        if i + 1 < all.len() {
            steps.push(Step::Match); // replaced below
        }
        for item in items {
            let first = steps.len();
            if item.optional {
                steps.push(Step::Match);
            }
            let body = steps.len();
            match &item.node {
                Node::Class(ranges, not) => steps.push(Step::Class(ranges.clone(), *not)),
                Node::Group(inner) => compile(inner, steps),
                Node::Start => steps.push(Step::Start),
                Node::End => steps.push(Step::End),
            }
            let after = steps.len() + usize::from(item.repeated);
            if item.repeated {
                steps.push(Step::Split(body, after));
            }
            if item.optional {
                steps[first] = Step::Split(body, after);
            }
        }
        if i + 1 < all.len() {
            ends.push(steps.len());
            steps.push(Step::Match);
            steps[split] = Step::Split(split + 1, steps.len());
        }
    }
    let after = steps.len();
    for end in ends {
        steps[end] = Step::Split(after, after);
    }
}

fn alternatives(c: &[char], mut at: usize, depth: u32) -> Option<(Vec<Vec<Item>>, usize)> {
    let mut all = vec![Vec::new()];
    while at < c.len() {
        let node = match c[at] {
            ')' if depth > 0 => break,
            '|' => {
                all.push(Vec::new());
                at += 1;
                continue;
            }
            '(' if depth < 16 => {
                // (?:...) is a group as well; other extensions are not known.
                let skip = if c[at + 1..].starts_with(&['?', ':']) { 3 } else { 1 };
                let (inner, end) = alternatives(c, at + skip, depth + 1)?;
                if c.get(end) != Some(&')') {
                    return None;
                }
                at = end;
                Node::Group(inner)
            }
            '[' => {
                let (class, end) = class(c, at + 1)?;
                at = end;
                class
            }
            '\\' => {
                at += 1;
                escape(*c.get(at)?)?
            }
            '.' => Node::Class(Vec::new(), true),
            '^' => Node::Start,
            '$' => Node::End,
            '*' | '+' | '?' | '{' | '(' | ')' | ']' => return None,
            literal => Node::Class(vec![(literal, literal)], false),
        };
        at += 1;
        let (optional, repeated) = match c.get(at) {
            Some('*') => (true, true),
            Some('+') => (false, true),
            Some('?') => (true, false),
            _ => (false, false),
        };
        if optional || repeated {
            at += 1;
            // Whether a repetition is greedy does not change what matches.
            at += usize::from(c.get(at) == Some(&'?'));
        }
        all.last_mut()?.push(Item { node, optional, repeated });
    }
    Some((all, at))
}

fn escape(c: char) -> Option<Node> {
    let class = match c {
        'd' => vec![('0', '9')],
        'w' => vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')],
        c if c.is_ascii_alphanumeric() => return None,
        c => vec![(c, c)],
    };
    Some(Node::Class(class, false))
}

/// What follows `[`, and the place of `]`.
fn class(c: &[char], mut at: usize) -> Option<(Node, usize)> {
    let not = c.get(at) == Some(&'^');
    at += usize::from(not);
    let mut ranges = Vec::new();
    while *c.get(at)? != ']' || ranges.is_empty() {
        if c[at] == '\\' {
            at += 1;
            let Node::Class(more, _) = escape(*c.get(at)?)? else { return None };
            ranges.extend(more);
        } else if c.get(at + 1) == Some(&'-') && *c.get(at + 2)? != ']' {
            ranges.push((c[at], c[at + 2]));
            at += 2;
        } else {
            ranges.push((c[at], c[at]));
        }
        at += 1;
    }
    Some((Node::Class(ranges, not), at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_python() {
        for (pattern, name, want) in [
            (".*q_proj", "model.layers.0.self_attn.q_proj", true),
            (".*q_proj$", "model.layers.0.self_attn.q_proj_x", false),
            ("q_proj", "model.q_proj", false),
            (r"model\.layers\.\d+\.mlp\.(gate|up)_proj", "model.layers.12.mlp.up_proj", true),
            (r"model\.layers\.\d+\.mlp\.(gate|up)_proj", "model.layers.x.mlp.up_proj", false),
            ("^.*[.]layers[.][0-3][.].*", "a.layers.3.b", true),
            ("^.*[.]layers[.][^0-3][.].*", "a.layers.3.b", false),
            (".*(?:self_attn)?.[qkv]_proj", "x.k_proj", true),
            ("(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
            ("(a|b+|)*c?d", "abbabcd", true),
            ("(a|b+|)*c?d", "abbabccd", false),
            ("(ab)+$", "ababab", true),
            ("(ab)+$", "ababa", false),
            ("(^a|b$)+", "ab", true),
            ("", "anything", true),
            ("x|.*y", "zy", true),
        ] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            let mut fuel = 1000;
            assert_eq!(parsed.matches(name, &mut fuel), Some(want), "{pattern} {name}");
        }
        for bad in ["(", ")", "[a", "*", "a{2}", "(?=x)", r"\b", "\\"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }
    /// Nothing recurses along the name, and the steps are counted over several names.
    #[test]
    fn long_names_and_hard_patterns() {
        let name = "a".repeat(200_000);
        let nested = format!("{}a{}", "(".repeat(16), ")*".repeat(16));
        for (pattern, want) in [(".*x", false), (".*", true), ("(a|aa)*$", true), (&nested, true)] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(&name, &mut 100_000_000), Some(want), "{pattern}");
        }
        let hard = Pattern::parse(&format!("{}{}", "a?".repeat(30), "a".repeat(30))).expect("parses");
        let mut fuel = 5000;
        assert_eq!(hard.matches(&"a".repeat(30), &mut fuel), Some(true));
        assert_eq!(Pattern::parse(".*x").expect("parses").matches(&name, &mut fuel), None);
        assert_eq!(Pattern::parse(&"a".repeat(MAX_LEN + 1)), None);
    }
}
