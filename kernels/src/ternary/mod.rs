//! Ternary matrices in words of a [dictionary](crate::quant::dictionary), decoded row by row.

pub mod ternary_decode;
pub mod ternary_gemv;

use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{TestCase, hash};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::quant::dictionary::{STRINGS, TernaryRows, dictionary};
use crate::rows;

/// A ternary matrix `[N, K]` on the device. What it holds must have been [checked](TernaryRows::check): kernels decode it as it is.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Rows N.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// [`dictionary`]
    pub dictionary: &'a Buffer,
    /// Words of 16 bits, two in a u32.
    pub codes: &'a Buffer,
    /// First word of each row, and the end of the last one `[N + 1]`.
    pub starts: &'a Buffer,
    /// Levels of the rows `[N]`.
    pub levels: &'a Buffer,
}

/// Bytes of the dictionary.
pub const DICTIONARY_BYTES: u64 = 8 * STRINGS as u64;

/// The buffers of a matrix in the order of bindings, checked.
fn bindings<'a>(kernel: &'static str, w: Matrix<'a>) -> Result<[&'a Buffer; 4], KernelError> {
    rows::positive(kernel, "rows of W", w.n)?;
    rows::positive(kernel, "columns of W", w.k)?;
    rows::elements(kernel, w.n, w.k)?;
    rows::check_sizes(
        kernel,
        [
            ("dictionary", Some(w.dictionary), DICTIONARY_BYTES),
            ("codes", Some(w.codes), 4),
            ("starts", Some(w.starts), 4 * (u64::from(w.n) + 1)),
            ("levels", Some(w.levels), 4 * u64::from(w.n)),
        ],
    )?;
    Ok([w.dictionary, w.codes, w.starts, w.levels])
}

/// Who takes a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Team {
    /// An invocation.
    Alone,
    /// A workgroup.
    Workgroup,
    /// A workgroup with subgroups.
    Subgroups,
}

const TEAMS: [(Team, u32); 5] = [
    (Team::Alone, 16),
    (Team::Workgroup, 32),
    (Team::Workgroup, 64),
    (Team::Subgroups, 32),
    (Team::Subgroups, 64),
];

/// The team for rows of k columns, and its invocations.
fn pick(caps: &Caps, kernel: &str, k: u32) -> (Team, u32) {
    let is_free = |name| !caps.is_blocked(kernel, name, Data::Plain);
    if caps.cpu_variants() && is_free("rows") {
        return (Team::Alone, 16);
    }
    // A word of a sparse row stands for some 20 columns.
    let wg = if k < 1024 { 32 } else { 64 };
    if caps.subgroups() && is_free("subgroup") { (Team::Subgroups, wg) } else { (Team::Workgroup, wg) }
}

fn choice(file: &'static str, (team, wg): (Team, u32)) -> Choice {
    let selection = Selection::new().set("WG", wg);
    let array = |words: u32| (4 * words).next_multiple_of(16);
    let (variant, selection, words) = match team {
        Team::Alone => ("rows", selection.part("team", "ternary/alone.wgsl"), 0),
        Team::Workgroup => ("portable", selection, wg),
        Team::Subgroups => ("subgroup", selection.part("team", "ternary/team_subgroup.wgsl"), wg / 4),
    };
    Choice {
        file,
        variant,
        selection,
        invocations: wg,
        // Counts of pairs, sums.
        workgroup_bytes: 2 * array(words),
        requires: Requires::subgroups_if(team == Team::Subgroups),
        data: Data::Plain,
    }
}

/// Workgroups for n rows.
fn grid(n: u32, (team, wg): (Team, u32), width: u32) -> [u32; 3] {
    rows::wrapped_grid(if team == Team::Alone { n.div_ceil(wg) } else { n }, width)
}

/// A matrix of seeded words, as a case has it.
struct Seeded {
    starts: Vec<u32>,
    codes: Vec<u16>,
    levels: Vec<u32>,
}

impl Seeded {
    /// Words that are probable and words at random, until a row is full.
    fn new(n: u32, k: u32) -> Self {
        let table = dictionary();
        let pairs = |code: u16| table[usize::from(code)][0] & 15;
        let (mut starts, mut codes): (Vec<u32>, Vec<u16>) = (vec![0], Vec::new());
        for row in 0..n {
            let mut left = k.div_ceil(2);
            for i in 0.. {
                let bits = hash(row * 7919 + i);
                // Not beyond the row, whose last pair is one of zeros.
                let code = if bits.is_multiple_of(3) { bits >> 16 } else { (bits >> 8) % 3000 } as u16;
                if left <= 14 || pairs(code) >= left {
                    break;
                }
                left -= pairs(code);
                codes.push(code);
            }
            codes.extend(std::iter::repeat_n(0, left as usize)); // word 0 is one pair of zeros
            starts.push(codes.len() as u32);
        }
        let level = |row: u32| half::bf16::from_f32(0.5 + (hash(row) % 64) as f32 / 64.0).to_bits();
        let levels = (0..n).map(|row| u32::from(level(row) | 0x8000) | u32::from(level(row + 99)) << 16);
        Self { starts, codes, levels: levels.collect() }
    }

    /// Two words in a u32.
    fn code_words(&self) -> Vec<u32> {
        let pair = |of: &[u16]| u32::from(of[0]) | of.get(1).map_or(0, |&high| u32::from(high) << 16);
        self.codes.chunks(2).map(pair).collect()
    }

    /// The case with its buffers.
    fn inputs(&self, case: TestCase) -> TestCase {
        case.input(dictionary()).input(&self.code_words()).input(&self.starts).input(&self.levels)
    }
}

/// The weights that a twin is given, in f32.
fn values(call: &crate::twin::TwinCall<'_>, n: u32, k: u32) -> Vec<f32> {
    let (codes, starts): (Vec<u16>, Vec<u32>) = (call.get(1), call.get(2));
    let levels: Vec<u32> = call.get(3);
    let end = starts.get(n as usize).map_or(0, |&end| end as usize);
    let rows = TernaryRows {
        n,
        k,
        starts: &starts[..=n as usize],
        codes: &codes[..end.min(codes.len())],
        levels: &levels[..n as usize],
    };
    rows.values().unwrap_or_else(|_| vec![f32::NAN; n as usize * k as usize])
}
