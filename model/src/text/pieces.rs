//! SentencePiece's BPE: pieces with scores, and no list of merges.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use serde::{Deserialize, Serialize};
use tokenizers::Token;

/// A neighbour that is none.
const NONE: usize = usize::MAX;

/// Pieces and their scores, by id.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub(crate) struct Pieces {
    stored: Stored,
    /// Ids by spelling; the first where several have one.
    ids: HashMap<String, u32>,
    /// Ids of `<0x00>` to `<0xFF>`.
    bytes: Vec<Option<u32>>,
    /// Bytes of the longest piece.
    longest: usize,
}

/// What a file says.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Stored {
    tokens: Vec<String>,
    scores: Vec<f32>,
    unknown: Option<u32>,
    /// Pieces that are joined but never come out: they fall apart again.
    #[serde(default)]
    unused: BTreeSet<u32>,
}

impl TryFrom<Stored> for Pieces {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let count = stored.tokens.len();
        if stored.scores.len() != count {
            return Err(format!("{} scores for {count} tokens", stored.scores.len()));
        }
        if u32::try_from(count).is_err() {
            return Err(format!("{count} tokens, ids have 32 bits"));
        }
        if let Some(id) = stored.unknown.filter(|&id| id as usize >= count) {
            return Err(format!("unknown token {id} of {count} tokens"));
        }
        let mut ids = HashMap::with_capacity(count);
        for (id, token) in (0..).zip(&stored.tokens) {
            if !token.is_empty() {
                ids.entry(token.clone()).or_insert(id);
            }
        }
        let bytes = (0..=255u8).map(|b| ids.get(&format!("<0x{b:02X}>")).copied()).collect();
        let longest = stored.tokens.iter().map(String::len).max().unwrap_or(0);
        Ok(Self { stored, ids, bytes, longest })
    }
}

impl From<Pieces> for Stored {
    fn from(pieces: Pieces) -> Self {
        pieces.stored
    }
}

/// A part of the text: a character at first, longer with each join, empty once it belongs to its left neighbour.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    end: usize,
    left: usize,
    right: usize,
}

/// Two neighbours whose joint text is a piece.
struct Join {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both, by which a join is recognised that another one came before.
    length: usize,
}

impl Ord for Join {
    /// The highest score, then the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Join {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Join {}

impl Pieces {
    /// Id of a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// Spelling of an id.
    pub fn spelling(&self, id: u32) -> Option<&str> {
        self.stored.tokens.get(id as usize).map(String::as_str).filter(|t| !t.is_empty())
    }

    /// All pieces with their ids.
    pub fn ids(&self) -> &HashMap<String, u32> {
        &self.ids
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.stored.tokens.len()
    }

    /// Joins the two neighbours whose joint text is the piece of the highest score, the leftmost of equal ones, as long
    /// as there are any; what they consist of need not be pieces. Characters that stay alone and are no pieces become
    /// their bytes, or one unknown token for a run of them where the bytes are no pieces either.
    ///
    /// Unused pieces fall apart into those that they were joined of.
    ///
    /// Work and memory grow with `n log n` of the text, times the length of the longest piece.
    pub fn tokenize(&self, text: &str) -> Vec<Token> {
        let (symbols, parts) = self.join(text);
        let mut tokens: Vec<Token> = Vec::new();
        let mut unknown_end = None;
        let mut at = 0;
        let mut left: Vec<(usize, usize)> = Vec::new();
        while let Some(symbol) = symbols.get(at) {
            left.push((symbol.start, symbol.end));
            while let Some((start, end)) = left.pop() {
                if let Some(&middle) = parts.get(&(start, end)) {
                    left.extend([(middle, end), (start, middle)]);
                    continue;
                }
                let piece = &text[start..end];
                let bytes = || piece.bytes().map(|b| self.bytes[b as usize]).collect::<Option<Vec<u32>>>();
                if let Some(id) = self.id(piece).filter(|id| !self.stored.unused.contains(id)) {
                    tokens.push(Token::new(id, piece.to_owned(), (start, end)));
                } else if let Some(ids) = bytes() {
                    for (i, id) in (start..).zip(ids) {
                        let value = self.spelling(id).unwrap_or_default().to_owned();
                        tokens.push(Token::new(id, value, (i, i + 1)));
                    }
                } else if let Some(id) = self.stored.unknown {
                    match tokens.last_mut() {
                        Some(last) if unknown_end == Some(start) => last.offsets.1 = end,
                        _ => {
                            let value = self.spelling(id).unwrap_or_default().to_owned();
                            tokens.push(Token::new(id, value, (start, end)));
                        }
                    }
                    unknown_end = Some(end);
                }
            }
            at = symbol.right;
        }
        tokens
    }

    /// What no join is left for, and where pieces that do not come out were joined.
    fn join(&self, text: &str) -> (Vec<Symbol>, HashMap<(usize, usize), usize>) {
        let starts = text.char_indices().map(|(start, c)| (start, start + c.len_utf8()));
        let mut symbols: Vec<Symbol> = starts
            .enumerate()
            .map(|(i, (start, end))| Symbol { start, end, left: i.wrapping_sub(1), right: i + 1 })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.right = NONE;
        }
        let mut joins = BinaryHeap::new();
        let mut parts = HashMap::new();
        for right in 1..symbols.len() {
            joins.extend(self.candidate(text, &symbols, right - 1, right));
        }
        while let Some(Join { left, right, length, .. }) = joins.pop() {
            let (l, r) = (symbols[left], symbols[right]);
            if l.start == l.end || r.start == r.end || r.end - l.start != length {
                continue;
            }
            if !self.stored.unused.is_empty()
                && self.id(&text[l.start..r.end]).is_some_and(|id| self.stored.unused.contains(&id))
            {
                parts.insert((l.start, r.end), l.end);
            }
            symbols[left] = Symbol { end: r.end, right: r.right, ..l };
            symbols[right].start = r.end;
            if let Some(next) = symbols.get_mut(r.right) {
                next.left = left;
            }
            joins.extend(self.candidate(text, &symbols, l.left, left));
            joins.extend(self.candidate(text, &symbols, left, r.right));
        }
        (symbols, parts)
    }

    fn candidate(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Join> {
        let (l, r) = (symbols.get(left)?, symbols.get(right)?);
        let length = r.end - l.start;
        if length > self.longest {
            return None;
        }
        let id = self.id(&text[l.start..r.end])?;
        let score = *self.stored.scores.get(id as usize)?;
        Some(Join { score, left, right, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(tokens: &[(&str, f32)], unknown: Option<u32>) -> Pieces {
        let stored = Stored {
            tokens: tokens.iter().map(|(t, _)| (*t).to_owned()).collect(),
            scores: tokens.iter().map(|(_, s)| *s).collect(),
            unknown,
            unused: BTreeSet::new(),
        };
        Pieces::try_from(stored).expect("pieces")
    }

    fn ids(p: &Pieces, text: &str) -> Vec<u32> {
        p.tokenize(text).iter().map(|t| t.id).collect()
    }

    #[test]
    fn parts_of_a_piece_need_not_be_pieces() {
        let p = pieces(&[("<unk>", 0.0), ("xy", -1.0), ("a", -2.0), ("xyz", -3.0)], Some(0));
        assert_eq!(ids(&p, "axyza"), [2, 3, 2]);
        assert_eq!(ids(&p, "xya"), [1, 2]);
    }

    #[test]
    fn scores_decide_then_the_place() {
        let p = pieces(
            &[("<unk>", 0.0), ("a", 0.0), ("ab", -2.0), ("bc", -1.0), ("c", 0.0), ("aa", -1.0)],
            Some(0),
        );
        assert_eq!(ids(&p, "abc"), [1, 3]);
        // Two joins of one score: the left one.
        assert_eq!(ids(&p, "aaa"), [5, 1]);
    }

    #[test]
    fn what_is_no_piece_becomes_bytes_or_one_unknown() {
        let p = pieces(&[("<unk>", 0.0), ("a", 0.0)], Some(0));
        let tokens = p.tokenize("aéüa");
        assert_eq!(
            tokens.iter().map(|t| (t.id, t.offsets)).collect::<Vec<_>>(),
            [(1, (0, 1)), (0, (1, 5)), (1, (5, 6))]
        );
        let p = pieces(&[("<unk>", 0.0), ("a", 0.0), ("<0xC3>", 0.0), ("<0xA9>", 0.0)], Some(0));
        assert_eq!(ids(&p, "aéü"), [1, 2, 3, 0]);
        assert_eq!(ids(&pieces(&[("a", 0.0)], None), "aéa"), [0, 0]);
        assert!(ids(&p, "").is_empty());
    }

    #[test]
    fn the_first_of_equal_spellings_is_found_and_all_are_spelt() {
        let p = pieces(&[("a", 0.0), ("", 0.0), ("a", 1.0)], None);
        assert_eq!(ids(&p, "a"), [0]);
        assert_eq!((p.spelling(0), p.spelling(1), p.spelling(2)), (Some("a"), None, Some("a")));
    }

    #[test]
    fn files_that_no_vocabulary_can_be() {
        let stored = |tokens: &[&str], scores: &[f32], unknown| {
            let tokens = tokens.iter().map(|t| (*t).to_owned()).collect();
            Pieces::try_from(Stored { tokens, scores: scores.to_vec(), unknown, unused: BTreeSet::new() })
        };
        assert!(stored(&["a"], &[], None).is_err());
        assert!(stored(&["a"], &[0.0], Some(1)).is_err());
        assert!(
            stored(&["a"], &[f32::NAN], Some(0)).expect("a score is a number or none").tokenize("aa").len()
                == 2
        );
    }

    /// Every prefix of a long piece is a piece: the work stays within text times longest piece.
    #[test]
    fn long_pieces_end_in_time() {
        let tokens: Vec<String> = (1..600).map(|n| "a".repeat(n)).collect();
        let scores = (1..600).map(|n| n as f32).collect();
        let stored = Stored { tokens, scores, unknown: None, unused: BTreeSet::new() };
        let p = Pieces::try_from(stored.clone()).expect("pieces");
        let text = "a".repeat(100_000);
        assert_eq!(p.tokenize(&text).iter().map(|t| t.offsets.1 - t.offsets.0).sum::<usize>(), text.len());
        let p = Pieces::try_from(Stored { unused: (1..599).collect(), ..stored }).expect("pieces");
        assert_eq!(p.tokenize(&text).len(), text.len());
    }

    #[test]
    fn unused_pieces_fall_apart_into_what_was_joined() {
        let mut p = pieces(&[("a", 0.0), ("b", 0.0), ("c", 0.0), ("ab", -1.0), ("abc", -2.0)], None);
        assert_eq!(ids(&p, "abc"), [4]);
        p.stored.unused = BTreeSet::from([4]);
        assert_eq!(ids(&p, "abc"), [3, 2]);
        p.stored.unused = BTreeSet::from([3]);
        assert_eq!(ids(&p, "abcab"), [4, 0, 1]);
    }
}
