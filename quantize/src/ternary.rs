//! Ternary matrices in words of a dictionary (`QMoE`, 2310.16795): rounding, encoding, bytes.

use std::sync::OnceLock;

use girih_kernels::quant::dictionary::{DictionaryError, TernaryRows, dictionary, symbols};

/// A ternary matrix `[N, K]`: of each row weights 0, its least value and its largest one, in bfloat16; its symbols 0, 1, 2 as words
/// of 16 bits that each name a string of the [dictionary], the longest one that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct TernaryMatrix {
    n: u32,
    k: u32,
    starts: Vec<u32>,
    codes: Vec<u16>,
    levels: Vec<u32>,
}

/// First bytes of a matrix.
const MAGIC: [u8; 8] = *b"girihT01";

/// The strings that each string goes on to: by its number and the next pair, and for the beginning.
struct Tree {
    next: Vec<[u32; 9]>,
}

/// No string.
const NONE: u32 = u32::MAX;

impl Tree {
    fn get() -> &'static Self {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            // Node 0 is the beginning, node i + 1 string i. Prefixes are more probable and so come first.
            let mut next = vec![[NONE; 9]; dictionary().len() + 1];
            for (i, &entry) in dictionary().iter().enumerate() {
                let of: Vec<u8> = symbols(entry).collect();
                let (pairs, _) = of.as_chunks::<2>();
                let Some((last, before)) = pairs.split_last() else { continue };
                let mut at = 0;
                for pair in before {
                    at = next[at][index(*pair)] as usize;
                }
                next[at][index(*last)] = i as u32 + 1;
            }
            Self { next }
        })
    }

    /// The words of pairs, each the longest string that the rest begins with.
    fn encode(&self, pairs: &[[u8; 2]], codes: &mut Vec<u16>) {
        let mut at = 0;
        for &pair in pairs {
            let mut next = self.next[at][index(pair)];
            if next == NONE {
                codes.push((at - 1) as u16);
                next = self.next[0][index(pair)]; // strings of one pair are there, all of them
            }
            at = next as usize;
        }
        if at > 0 {
            codes.push((at - 1) as u16);
        }
    }
}

fn index([first, second]: [u8; 2]) -> usize {
    usize::from(3 * first + second)
}

impl TernaryMatrix {
    /// Encodes symbols `[N, K]` of rows with these levels: bits of bfloat16 of the symbols 1 and 2, in the lower and the higher
    /// half.
    ///
    /// # Errors
    /// Numbers of symbols or levels that do not fit, symbols above 2, no rows or columns, 2^32 weights or words or more.
    pub fn encode(symbols: &[u8], levels: &[u32], [n, k]: [u32; 2]) -> Result<Self, DictionaryError> {
        let Some(len) = n.checked_mul(k).filter(|&len| len > 0) else {
            return Err(DictionaryError::Shape { n, k });
        };
        for (what, got, want) in [("the symbols", symbols.len(), len), ("the levels", levels.len(), n)] {
            if got as u64 != u64::from(want) {
                return Err(DictionaryError::Length { what, got: got as u64, want: want.into() });
            }
        }
        let (mut starts, mut codes, mut pairs) = (vec![0], Vec::new(), Vec::new());
        for (row, of) in (0..).zip(symbols.chunks_exact(k as usize)) {
            if let Some(&got) = of.iter().find(|&&s| s > 2) {
                return Err(DictionaryError::Symbol { row, got });
            }
            let (whole, rest) = of.as_chunks::<2>();
            pairs.clear();
            pairs.extend_from_slice(whole);
            pairs.extend(rest.iter().map(|&last| [last, 0]));
            Tree::get().encode(&pairs, &mut codes);
            starts.push(codes.len() as u32); // fewer than weights
        }
        Ok(Self { n, k, starts, codes, levels: levels.to_vec() })
    }

    /// Rounds values `[N, K]`: each to the nearest of 0, the least and the largest value of its row as bfloat16, the one nearer to 0
    /// among equals. A row without negative values has the least value 0, one without positive ones the largest value 0.
    ///
    /// # Errors
    /// Values that are not finite, and as [`TernaryMatrix::encode`].
    pub fn round(values: &[f32], [n, k]: [u32; 2]) -> Result<Self, DictionaryError> {
        let (mut symbols, mut levels) = (Vec::with_capacity(values.len()), Vec::new());
        for (row, of) in (0..).zip(values.chunks(k.max(1) as usize)) {
            if of.iter().any(|v| !v.is_finite()) {
                return Err(DictionaryError::NotFinite { row });
            }
            let bf16 = |v: f32| half::bf16::from_f32(v.clamp(-3.38e38, 3.38e38));
            let [least, largest] =
                [of.iter().copied().fold(0.0, f32::min), of.iter().copied().fold(0.0, f32::max)];
            let [least, largest] = [least, largest].map(bf16);
            levels.push(u32::from(least.to_bits()) | u32::from(largest.to_bits()) << 16);
            let symbol = |&v: &f32| match f64::from(v) {
                v if v < 0.0 && -v > -f64::from(least.to_f32()) / 2.0 => 1,
                v if v > 0.0 && v > f64::from(largest.to_f32()) / 2.0 => 2,
                _ => 0,
            };
            symbols.extend(of.iter().map(symbol));
        }
        Self::encode(&symbols, &levels, [n, k])
    }

    /// The parts, as kernels take them.
    pub fn rows(&self) -> TernaryRows<'_> {
        let Self { n, k, starts, codes, levels } = self;
        TernaryRows { n: *n, k: *k, starts, codes, levels }
    }

    /// Bits of words and levels for each weight.
    pub fn bits_per_weight(&self) -> f64 {
        let bits = 16.0 * self.codes.len() as f64 + 32.0 * (self.levels.len() + self.starts.len()) as f64;
        bits / (f64::from(self.n) * f64::from(self.k))
    }

    /// The matrix as bytes, all numbers little-endian: 8 of a mark, N, K, the number of words, N + 1 starts of rows, N levels, the words.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let head = [self.n, self.k, self.codes.len() as u32];
        for word in head.iter().chain(&self.starts).chain(&self.levels) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.codes.iter().flat_map(|code| code.to_le_bytes()));
        bytes
    }

    /// The matrix of bytes that [`TernaryMatrix::to_bytes`] wrote, checked in whole: every row decodes to its columns.
    ///
    /// # Errors
    /// Another mark, bytes that are missing or too many, and as [`TernaryRows::check`]. Memory is taken for what is there only.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DictionaryError> {
        let length = |what, want: u64| DictionaryError::Length { what, got: bytes.len() as u64, want };
        let Some((head, rest)) = bytes.split_first_chunk::<20>() else {
            return Err(length("the bytes of the head", 20));
        };
        if head[..8] != MAGIC {
            return Err(DictionaryError::Mark);
        }
        let (words, _) = head[8..].as_chunks::<4>();
        let [n, k, codes] = [words[0], words[1], words[2]].map(u32::from_le_bytes);
        let want = 20 + 4 * (2 * u64::from(n) + 1) + 2 * u64::from(codes);
        if bytes.len() as u64 != want {
            return Err(length("the bytes", want));
        }
        let (words, codes) = rest.split_at(4 * (2 * n as usize + 1));
        let words: Vec<u32> = words.as_chunks().0.iter().map(|&w| u32::from_le_bytes(w)).collect();
        let codes = codes.as_chunks().0.iter().map(|&c| u16::from_le_bytes(c)).collect();
        let (starts, levels) = words.split_at(n as usize + 1);
        let matrix = Self { n, k, starts: starts.to_vec(), codes, levels: levels.to_vec() };
        matrix.rows().check()?;
        Ok(matrix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Symbols with so many zeros in a thousand.
    fn seeded(random: &mut Random, len: usize, zeros: u64) -> Vec<u8> {
        (0..len).map(|_| if random.below(1000) < zeros { 0 } else { 1 + random.below(2) as u8 }).collect()
    }

    /// Of any size and density: symbols come back, through bytes too.
    #[test]
    fn what_is_encoded_comes_back() {
        let mut random = Random::new(7);
        for _ in 0..200 {
            let [n, k] = [1 + random.below(9) as u32, 1 + random.below(300) as u32];
            let zeros = random.below(1001);
            let of = seeded(&mut random, (n * k) as usize, zeros);
            let levels: Vec<u32> = (0..n).map(|_| random.bits() as u32).collect();
            let matrix = TernaryMatrix::encode(&of, &levels, [n, k]).expect("encodes");
            assert_eq!(matrix.rows().symbols().as_ref(), Ok(&of), "{n} x {k}, {zeros}");
            assert_eq!(TernaryMatrix::from_bytes(&matrix.to_bytes()), Ok(matrix));
        }
    }

    /// 0.736 bits a weight, as the paper's coding of ternary data with 88.5 % of zeros; nearly the least of 16 / 28 without others.
    #[test]
    fn words_cost_what_the_paper_says() {
        let mut random = Random::new(3);
        let bits = |of: &[u8]| {
            let matrix = TernaryMatrix::encode(of, &[0], [1, of.len() as u32]).expect("encodes");
            16.0 * matrix.rows().codes.len() as f64 / of.len() as f64
        };
        let cost = bits(&seeded(&mut random, 1 << 20, 885));
        assert!((cost - 0.736).abs() < 0.003, "{cost}");
        assert!((bits(&vec![0; 28 * 1000]) - 16.0 / 28.0).abs() < 1e-6);
    }

    #[test]
    fn values_round_to_the_nearest_level() {
        let values = [0.0, -2.0, -0.9, -1.1, 0.26, 0.5, 0.25, 1e-9, 0.0, 3.0, 1.4, 1.6];
        let matrix = TernaryMatrix::round(&values, [2, 6]).expect("rounds");
        assert_eq!(matrix.rows().symbols(), Ok(vec![0, 1, 0, 1, 2, 2, 0, 0, 0, 2, 0, 2]));
        let want = [0.0, -2.0, 0.0, -2.0, 0.5, 0.5, 0.0, 0.0, 0.0, 3.0, 0.0, 3.0];
        assert_eq!(matrix.rows().values(), Ok(want.to_vec()));
        assert_eq!(TernaryMatrix::round(&want, [2, 6]), Ok(matrix));
        let error = TernaryMatrix::round(&[1.0, f32::NAN], [2, 1]);
        assert_eq!(error, Err(DictionaryError::NotFinite { row: 1 }));
        assert!(TernaryMatrix::round(&[], [0, 0]).is_err());
        assert!(TernaryMatrix::round(&[1.0], [1, 2]).is_err());
        assert_eq!(
            TernaryMatrix::encode(&[3], &[0], [1, 1]),
            Err(DictionaryError::Symbol { row: 0, got: 3 })
        );
    }

    /// Any change of any byte gives a matrix that decodes, or a typed error; so does any cut.
    #[test]
    fn damaged_bytes_are_errors_or_other_matrices() {
        let mut random = Random::new(11);
        let of = seeded(&mut random, 3 * 47, 800);
        let bytes = TernaryMatrix::encode(&of, &[5, 6, 7], [3, 47]).expect("encodes").to_bytes();
        for at in 0..bytes.len() {
            assert!(TernaryMatrix::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(matrix) = TernaryMatrix::from_bytes(&damaged) {
                    assert_eq!(matrix.rows().values().expect("decodes").len(), 3 * 47);
                }
            }
        }
        // A head that asks for gigabytes.
        let mut huge = MAGIC.to_vec();
        huge.extend([0xff; 12]);
        assert!(TernaryMatrix::from_bytes(&huge).is_err());
    }
}
