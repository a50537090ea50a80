//! Ternary weights in words of a dictionary, below one bit each (`QMoE`, 2310.16795).
//!
//! A row has weights 0, its least value and its largest one: symbols 0, 1, 2. Two symbols are a pair; a word of 16 bits names a
//! string of 1 to 14 pairs, a row is a run of words. The dictionary has the 2^16 most probable strings, where a symbol is 0 with the
//! probability 0.885 and 1 or 2 with half of the rest each. Prefixes of strings are strings too.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

/// Strings of the dictionary.
pub const STRINGS: usize = 1 << 16;
/// Pairs of the longest string that a word may name.
pub const MAX_PAIRS: u32 = 14;
/// Probability of the symbol 0.
pub const ZERO: f64 = 0.885;

/// What is wrong with a ternary matrix.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DictionaryError {
    /// A part has another length than the rest asks for.
    #[error("ternary matrix: {what} has {got} elements, must have {want}")]
    Length {
        /// The part.
        what: &'static str,
        /// Elements found.
        got: u64,
        /// Elements wanted.
        want: u64,
    },
    /// A matrix of no rows or columns, or of too many.
    #[error("ternary matrix: {n} rows of {k} columns, must be 1 or more of each, and below 2^32 weights")]
    Shape {
        /// Rows.
        n: u32,
        /// Columns.
        k: u32,
    },
    /// Rows must lie one behind the other.
    #[error("ternary matrix: row {row} begins at word {got}, before row {} at {before}", row - 1)]
    Order {
        /// The row.
        row: u32,
        /// Where it begins.
        got: u32,
        /// Where the one before begins.
        before: u32,
    },
    /// The words of a row give another number of pairs than the row has.
    #[error("ternary matrix: the words of row {row} have {got} pairs, must have {want}")]
    Pairs {
        /// The row.
        row: u32,
        /// Pairs found.
        got: u64,
        /// Pairs wanted.
        want: u32,
    },
    /// The last pair of an odd row must end with the symbol 0.
    #[error("ternary matrix: row {row} has a weight behind its last column")]
    Behind {
        /// The row.
        row: u32,
    },
    /// The bytes are those of something else.
    #[error("ternary matrix: the bytes do not begin with its mark")]
    Mark,
    /// A symbol must be 0, 1 or 2.
    #[error("ternary matrix: symbol {got} of row {row}, must be 0, 1 or 2")]
    Symbol {
        /// The row.
        row: u32,
        /// The symbol.
        got: u8,
    },
    /// A value must be finite.
    #[error("ternary matrix: a value of row {row} is not finite")]
    NotFinite {
        /// The row.
        row: u32,
    },
}

/// The dictionary as kernels read it: two words for each string. The lowest 4 bits of the first are its number of pairs; seven pairs
/// lie in each word from bit 4 on, four bits each, the first symbol of a pair lower.
pub fn dictionary() -> &'static [[u32; 2]] {
    static TABLE: OnceLock<Vec<[u32; 2]>> = OnceLock::new();
    TABLE.get_or_init(build)
}

/// A string whose prefixes are in the dictionary.
struct Candidate {
    log_probability: f64,
    pairs: u32,
    /// Four bits a pair, the first one highest.
    string: u64,
}

impl Candidate {
    fn new(pairs: u32, string: u64) -> Self {
        let symbols = (0..2 * pairs).filter(|i| string >> (2 * i) & 3 != 0).count() as u32;
        let zeros = f64::from(2 * pairs - symbols);
        let log_probability = zeros * ZERO.ln() + f64::from(symbols) * ((1.0 - ZERO) / 2.0).ln();
        Self { log_probability, pairs, string }
    }
}

/// The more probable one first; of equals the shorter one, then in the order of symbols.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_probability = self.log_probability.total_cmp(&other.log_probability);
        by_probability.then(other.pairs.cmp(&self.pairs)).then(other.string.cmp(&self.string))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The pairs of two symbols 0, 1, 2, the first one higher.
fn pairs() -> impl Iterator<Item = u64> {
    (0..3).flat_map(|first| (0..3).map(move |second| first << 2 | second))
}

fn build() -> Vec<[u32; 2]> {
    let mut heap: BinaryHeap<Candidate> = pairs().map(|pair| Candidate::new(1, pair)).collect();
    let mut table = Vec::with_capacity(STRINGS);
    while let Some(Candidate { pairs: count, string, .. }) = heap.pop() {
        let mut words = [count, 0];
        for i in 0..count {
            let pair = (string >> (4 * (count - 1 - i)) & 15) as u32;
            words[(i / 7) as usize] |= (pair >> 2 | (pair & 3) << 2) << (4 + 4 * (i % 7));
        }
        table.push(words);
        if table.len() == STRINGS {
            break;
        }
        if count < MAX_PAIRS {
            heap.extend(pairs().map(|pair| Candidate::new(count + 1, string << 4 | pair)));
        }
    }
    table
}

/// Symbols of a string, two for each pair.
pub fn symbols(entry: [u32; 2]) -> impl Iterator<Item = u8> {
    (0..2 * (entry[0] & 15)).map(move |i| (entry[(i / 14) as usize] >> (4 + 2 * (i % 14)) & 3) as u8)
}

/// A ternary matrix `[N, K]`, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct TernaryRows<'a> {
    /// Rows N.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// First word of each row, and the end of the last one `[N + 1]`.
    pub starts: &'a [u32],
    /// Words.
    pub codes: &'a [u16],
    /// What the symbols 1 and 2 of each row stand for: bits of bfloat16 in the lower and the higher half `[N]`.
    pub levels: &'a [u32],
}

impl TernaryRows<'_> {
    /// Checks that every row decodes to its columns, so that kernels may.
    ///
    /// # Errors
    /// No rows or columns, or too many; parts of other lengths; rows that are not one behind the other, or whose words give more
    /// or fewer symbols than there are columns.
    pub fn check(&self) -> Result<(), DictionaryError> {
        let Self { n, k, starts, codes, levels } = *self;
        if n == 0 || k == 0 || n.checked_mul(k).is_none() || n == u32::MAX {
            return Err(DictionaryError::Shape { n, k });
        }
        for (what, got, want) in
            [("the starts of rows", starts.len(), u64::from(n) + 1), ("the levels", levels.len(), n.into())]
        {
            if got as u64 != want {
                return Err(DictionaryError::Length { what, got: got as u64, want });
            }
        }
        let (first, end) = (starts[0], starts[n as usize]);
        if first != 0 || u64::from(end) != codes.len() as u64 {
            let (what, got) = ("the words", codes.len() as u64);
            return Err(DictionaryError::Length { what, got, want: end.into() });
        }
        for row in 0..n {
            let [from, to] = [starts[row as usize], starts[row as usize + 1]];
            if from > to {
                return Err(DictionaryError::Order { row: row + 1, got: to, before: from });
            }
            let Some(codes) = codes.get(from as usize..to as usize) else {
                let (what, got) = ("the words", codes.len() as u64);
                return Err(DictionaryError::Length { what, got, want: to.into() });
            };
            let mut entries = codes.iter().map(|&code| dictionary()[usize::from(code)]);
            let got: u64 = entries.clone().map(|entry| u64::from(entry[0] & 15)).sum();
            let want = k.div_ceil(2);
            if got != u64::from(want) {
                return Err(DictionaryError::Pairs { row, got, want });
            }
            if k % 2 == 1 && entries.next_back().and_then(|entry| symbols(entry).last()) != Some(0) {
                return Err(DictionaryError::Behind { row });
            }
        }
        Ok(())
    }

    /// The symbols of all rows `[N, K]`.
    ///
    /// # Errors
    /// As [`TernaryRows::check`].
    pub fn symbols(&self) -> Result<Vec<u8>, DictionaryError> {
        self.check()?;
        let k = self.k as usize;
        let mut all = Vec::new();
        for (row, run) in self.starts.windows(2).enumerate() {
            for &code in &self.codes[run[0] as usize..run[1] as usize] {
                all.extend(symbols(dictionary()[usize::from(code)]));
            }
            all.truncate((row + 1) * k);
        }
        Ok(all)
    }

    /// The weights `[N, K]`: 0, or what the levels of the row say.
    ///
    /// # Errors
    /// As [`TernaryRows::check`].
    pub fn values(&self) -> Result<Vec<f32>, DictionaryError> {
        let symbols = self.symbols()?;
        let rows = symbols.chunks_exact(self.k as usize).zip(self.levels);
        Ok(rows.flat_map(|(row, &of)| row.iter().map(move |&s| level(of, s))).collect())
    }
}

/// What a symbol of a row with these levels stands for.
pub fn level(levels: u32, symbol: u8) -> f32 {
    match symbol {
        0 => 0.0,
        1 => f32::from_bits(levels << 16),
        _ => f32::from_bits(levels & 0xffff_0000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_paper() {
        let table = dictionary();
        let mut lengths = [0; 14];
        for entry in table {
            lengths[(entry[0] & 15) as usize - 1] += 1;
        }
        assert_eq!(lengths, [9, 65, 233, 577, 1161, 2049, 3305, 4993, 7177, 9921, 13289, 17345, 3843, 1569]);
        // Runs of zeros first, the shortest before all.
        for (i, want) in [0.783225, 0.613441, 0.480463, 0.376310, 0.294736, 0.230844].into_iter().enumerate()
        {
            assert_eq!(table[i], [i as u32 + 1, 0]);
            assert!((Candidate::new(i as u32 + 1, 0).log_probability.exp() - want).abs() < 1e-6);
        }
        // Each once, with its prefixes.
        let strings: std::collections::HashSet<Vec<u8>> =
            table.iter().map(|&e| symbols(e).collect()).collect();
        assert_eq!(strings.len(), STRINGS);
        assert!(strings.iter().all(|s| s.len() == 2 || strings.contains(&s[..s.len() - 2])));
    }

    #[test]
    fn rows_that_do_not_decode_are_typed_errors() {
        // Words 0 and 1 are one pair and two pairs of zeros.
        let good = TernaryRows { n: 2, k: 5, starts: &[0, 2, 3], codes: &[0, 1, 2], levels: &[1, 2] };
        assert_eq!(good.symbols(), Ok(vec![0; 10]));
        let behind = dictionary().iter().position(|&e| symbols(e).collect::<Vec<_>>() == [0, 1]).expect("it");
        let codes = [1, behind as u16, 2];
        for (rows, part) in [
            (TernaryRows { n: 0, ..good }, "0 rows"),
            (TernaryRows { k: u32::MAX, ..good }, "below 2^32 weights"),
            (TernaryRows { starts: &[0, 3], ..good }, "starts of rows has 2"),
            (TernaryRows { levels: &[1], ..good }, "levels has 1"),
            (TernaryRows { starts: &[0, 2, 4], ..good }, "words has 3 elements, must have 4"),
            (TernaryRows { starts: &[0, 5, 3], ..good }, "words has 3 elements, must have 5"),
            (TernaryRows { n: 3, starts: &[0, 2, 1, 3], levels: &[0; 3], ..good }, "row 2 begins at word 1"),
            (TernaryRows { starts: &[0, 1, 3], ..good }, "row 0 have 1 pairs, must have 3"),
            (TernaryRows { codes: &codes, ..good }, "row 0 has a weight behind"),
        ] {
            let error = rows.check().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
