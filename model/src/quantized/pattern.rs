//! The regular expressions with which compressed-tensors names modules: literals, `.`, `[a-z]`, `\d`, `\w`, groups,
//! `|`, `*`, `+`, `?`, `^`, `$`. Matched from the beginning, as Python's `re.match` does.

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Vec<Vec<Item>>);

#[derive(Clone, Debug, PartialEq)]
struct Item {
    node: Node,
    min: usize,
    max: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Ranges of characters, or all but those.
    Class(Vec<(char, char)>, bool),
    Group(Vec<Vec<Item>>),
    Start,
    End,
}

/// Steps after which a match is given up: names are short, only a pattern made for it needs more.
const FUEL: u32 = 1 << 20;

impl Pattern {
    /// `None`: syntax that is not known here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let chars: Vec<char> = text.chars().collect();
        let (alternatives, end) = alternatives(&chars, 0, 0)?;
        (end == chars.len()).then_some(Self(alternatives))
    }

    /// Whether the name begins with something that the pattern describes.
    pub(super) fn matches(&self, name: &str) -> bool {
        let chars: Vec<char> = name.chars().collect();
        let mut fuel = FUEL;
        self.0.iter().any(|items| sequence(items, &chars, 0, &mut fuel, &mut |_, _| true))
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
        let (min, max) = match c.get(at) {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            _ => (1, 1),
        };
        if (min, max) != (1, 1) {
            at += 1;
            // Whether a repetition is greedy does not change what matches.
            at += usize::from(c.get(at) == Some(&'?'));
        }
        all.last_mut()?.push(Item { node, min, max });
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

type Rest<'a> = &'a mut dyn FnMut(usize, &mut u32) -> bool;

fn sequence(items: &[Item], name: &[char], at: usize, fuel: &mut u32, rest: Rest<'_>) -> bool {
    match items.split_first() {
        None => rest(at, fuel),
        Some((item, later)) => repeat(item, 0, name, at, fuel, &mut |at, fuel: &mut u32| {
            sequence(later, name, at, fuel, rest)
        }),
    }
}

fn repeat(item: &Item, done: usize, name: &[char], at: usize, fuel: &mut u32, rest: Rest<'_>) -> bool {
    if *fuel == 0 {
        return false;
    }
    *fuel -= 1;
    if done < item.max {
        let mut again = |next: usize, fuel: &mut u32| {
            (next > at || done < item.min) && repeat(item, done + 1, name, next, fuel, rest)
        };
        let more = match &item.node {
            Node::Class(ranges, not) => name.get(at).is_some_and(|c| {
                ranges.iter().any(|(a, b)| (a..=b).contains(&c)) != *not && again(at + 1, fuel)
            }),
            Node::Group(all) => all.iter().any(|items| sequence(items, name, at, fuel, &mut again)),
            Node::Start => at == 0 && again(at, fuel),
            Node::End => at == name.len() && again(at, fuel),
        };
        if more {
            return true;
        }
    }
    done >= item.min && rest(at, fuel)
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
            ("x|.*y", "zy", true),
        ] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(name), want, "{pattern} {name}");
        }
        for bad in ["(", ")", "[a", "*", "a{2}", "(?=x)", r"\b", "\\"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }
}
