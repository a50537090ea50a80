//! Softmax attention over a cache of keys and values: `o = softmax(scale · q kᵀ) v` for each head, with grouped
//! heads, causal and window masks, capped scores, sinks and ragged batches. `prefill` takes any number of rows,
//! `decode` one row of each sequence with the keys split among workgroups, `merge` joins the splits.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::error::KernelError;
use crate::rows;
use crate::spec::{Binding, read, read_write};

pub mod decode;
pub mod linear_attention;
mod measured;
pub mod merge;
pub mod prefill;
mod reference;

/// Log of a sum over no keys: finite, because WGSL may assume that infinities do not occur.
pub const EMPTY_LSE: f32 = -1.0e30;
/// Largest head dim of keys: that of latents with their rotated part.
pub const MAX_KEY_DIM: u32 = 576;
/// Largest head dim of values.
pub const MAX_VALUE_DIM: u32 = 512;

/// Same layout as `Params` in `attention/common.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Query heads Hq.
    pub num_q_heads: u32,
    /// Key heads Hkv; divides Hq.
    pub num_kv_heads: u32,
    /// Channels D of a query and of a key.
    pub head_dim: u32,
    /// Channels Dv of a value.
    pub value_dim: u32,
    /// Elements from one slot of the keys to the next.
    pub k_slot: u32,
    /// From one head to the next.
    pub k_head: u32,
    /// From one token to the next.
    pub k_token: u32,
    /// The same of the values.
    pub v_slot: u32,
    /// Heads.
    pub v_head: u32,
    /// Tokens.
    pub v_token: u32,
    /// Rows T of the batch.
    pub num_tokens: u32,
    /// Prefill: tiles of rows along x.
    pub row_tiles: u32,
    /// Whether a row sees no key after itself.
    pub causal: u32,
    /// Keys that a row sees, itself included; 0 for all.
    pub window: u32,
    /// Whether `sinks` holds a logit for each head.
    pub has_sinks: u32,
    /// Decode: shares of the keys.
    pub splits: u32,
    /// Decode: groups of rows of one key head.
    pub row_blocks: u32,
    /// Factor of the scores.
    pub scale: f32,
    /// Bound of the scores (with `SOFTCAP`).
    pub softcap: f32,
    /// Padding.
    pub unused: u32,
}

/// Buffers. `q [T, Hq, D]`, keys and values as the strides say, `seqs [S, 4]`, `sinks [Hq]`.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Queries.
    pub q: &'a Buffer,
    /// Keys.
    pub k: &'a Buffer,
    /// Values.
    pub v: &'a Buffer,
    /// First row, rows, keys and slot of each sequence.
    pub seqs: &'a Buffer,
    /// A logit for each head that takes part in the softmax without a value.
    pub sinks: Option<&'a Buffer>,
    /// Result `[T, Hq, Dv]`; of decode `[splits, T, Hq, Dv]`.
    pub o: &'a Buffer,
    /// Natural log of the softmax denominator, `[T, Hq]`; of decode `[splits, T, Hq]`.
    pub lse: &'a Buffer,
}

impl<'a> Args<'a> {
    fn buffers(&self) -> [&'a Buffer; 7] {
        // Without sinks the binding is not read; it needs some read-only buffer.
        [self.q, self.k, self.v, self.seqs, self.sinks.unwrap_or(self.seqs), self.o, self.lse]
    }
}

/// Sizes, layout and options of one call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Query heads Hq.
    pub num_q_heads: u32,
    /// Key heads Hkv.
    pub num_kv_heads: u32,
    /// Channels of a query and of a key.
    pub head_dim: u32,
    /// Channels of a value.
    pub value_dim: u32,
    /// Elements from one slot, head and token of the keys to the next.
    pub k_strides: [u32; 3],
    /// The same of the values.
    pub v_strides: [u32; 3],
    /// Keys and values are f16, two to a word.
    pub f16: bool,
    /// Rows T of the batch.
    pub num_tokens: u32,
    /// Sequences S.
    pub num_seqs: u32,
    /// Longest sequence in rows.
    pub max_q_len: u32,
    /// Bound of the keys of a sequence.
    pub max_kv_len: u32,
    /// Factor of the scores.
    pub scale: f32,
    /// Bound of the scores: `s → softcap · tanh(s / softcap)`.
    pub softcap: Option<f32>,
    /// Keys that a row sees, itself included.
    pub window: Option<u32>,
    /// Whether a row sees no key after itself.
    pub causal: bool,
}

impl Shape {
    fn check(&self, kernel: &'static str) -> Result<(), KernelError> {
        let bad =
            |field, got: u32, must_be| Err(KernelError::BadParam { kernel, field, got: got.into(), must_be });
        if self.num_kv_heads == 0 {
            return bad("num_kv_heads", 0, "positive");
        }
        if self.num_q_heads == 0 || !self.num_q_heads.is_multiple_of(self.num_kv_heads) {
            return bad("num_q_heads", self.num_q_heads, "a positive multiple of num_kv_heads");
        }
        if self.head_dim == 0 || self.head_dim > MAX_KEY_DIM {
            return bad("head_dim", self.head_dim, "1 to 576");
        }
        if self.value_dim == 0 || self.value_dim > MAX_VALUE_DIM {
            return bad("value_dim", self.value_dim, "1 to 512");
        }
        if self.window == Some(0) {
            return bad("window", 0, "positive");
        }
        let rows = rows::elements(kernel, self.num_tokens, self.num_q_heads)?;
        rows::elements(kernel, rows, self.head_dim.max(self.value_dim))?;
        Ok(())
    }

    /// Query heads of one key head G.
    fn group(&self) -> u32 {
        self.num_q_heads / self.num_kv_heads
    }

    /// Whether all rows start at multiples of four elements.
    fn vec4(&self) -> bool {
        let dims = [self.head_dim, self.value_dim];
        dims.iter().chain(&self.k_strides).chain(&self.v_strides).all(|n| n.is_multiple_of(4))
    }

    fn params(&self, has_sinks: bool) -> Params {
        let ([k_slot, k_head, k_token], [v_slot, v_head, v_token]) = (self.k_strides, self.v_strides);
        Params {
            num_q_heads: self.num_q_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            k_slot,
            k_head,
            k_token,
            v_slot,
            v_head,
            v_token,
            num_tokens: self.num_tokens,
            row_tiles: 1,
            causal: self.causal.into(),
            window: self.window.unwrap_or(0).min(1 << 30),
            has_sinks: has_sinks.into(),
            splits: 1,
            row_blocks: 1,
            scale: self.scale,
            softcap: self.softcap.unwrap_or(0.0),
            unused: 0,
        }
    }

    /// Parts that read and write, and whether scores are capped.
    fn selection(&self) -> Selection {
        let selection = Selection::new().set("SOFTCAP", self.softcap.is_some());
        match (self.f16, self.vec4()) {
            (false, true) => selection,
            (true, true) => selection.part("kv", "attention/kv_f16.wgsl"),
            (false, false) => {
                selection.part("io", "attention/io_scalar.wgsl").part("kv", "attention/kv_f32_scalar.wgsl")
            }
            (true, false) => {
                selection.part("io", "attention/io_scalar.wgsl").part("kv", "attention/kv_f16_scalar.wgsl")
            }
        }
    }
}

const BINDINGS: &[Binding] = &[
    read("q"),
    read("k").in_part(),
    read("v").in_part(),
    read("seqs"),
    read("sinks"),
    read_write("o"),
    read_write("lse"),
];

/// A case of prefill or decode.
#[derive(Clone, Copy)]
struct Problem {
    name: &'static str,
    regime: Regime,
    /// Hq, Hkv, D, Dv.
    heads: [u32; 4],
    /// Rows and keys of each sequence.
    seqs: &'static [(u32, u32)],
    causal: bool,
    window: Option<u32>,
    softcap: Option<f32>,
    sinks: bool,
    f16: bool,
    /// Multiplies queries and keys.
    magnitude: f32,
    splits: u32,
}

const PROBLEM: Problem = Problem {
    name: "",
    regime: Regime::ManyTiles,
    heads: [1, 1, 32, 32],
    seqs: &[(1, 1)],
    causal: true,
    window: None,
    softcap: None,
    sinks: false,
    f16: false,
    magnitude: 1.0,
    splits: 1,
};

impl Problem {
    /// Keys after the longest sequence's, filled with NaN bits.
    const TAIL: u32 = 5;

    fn shape(&self) -> Shape {
        let [num_q_heads, num_kv_heads, head_dim, value_dim] = self.heads;
        let max = |f: fn(&(u32, u32)) -> u32| self.seqs.iter().map(f).max().unwrap_or(0);
        let capacity = max(|s| s.1) + Self::TAIL;
        let strides = |dim: u32| [num_kv_heads * capacity * dim, capacity * dim, dim];
        Shape {
            num_q_heads,
            num_kv_heads,
            head_dim,
            value_dim,
            k_strides: strides(head_dim),
            v_strides: strides(value_dim),
            f16: self.f16,
            num_tokens: self.seqs.iter().map(|s| s.0).sum(),
            num_seqs: self.seqs.len() as u32,
            max_q_len: max(|s| s.0),
            max_kv_len: max(|s| s.1),
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: self.softcap,
            window: self.window,
            causal: self.causal,
        }
    }

    fn params(&self) -> Params {
        Params { splits: self.splits, ..self.shape().params(self.sinks) }
    }

    /// Slots lie in reverse order, so that a kernel that ignores them is seen.
    fn case(&self) -> TestCase {
        let shape = self.shape();
        let len = |dim: u32| (shape.num_tokens * shape.num_q_heads * dim) as usize;
        // No outliers in the scores: their rounding error is multiplied by the magnitude of the values.
        let plain = |len: usize, seed: u32| -> Vec<f32> {
            seeded(len, seed).iter().map(|v| v.clamp(-1.0, 1.0) * self.magnitude).collect()
        };
        let mut seqs = Vec::new();
        let mut q_base = 0;
        for (i, &(q_len, kv_len)) in self.seqs.iter().enumerate() {
            seqs.extend([q_base, q_len, kv_len, shape.num_seqs - 1 - i as u32]);
            q_base += q_len;
        }
        let cache = |dim: u32, strides: [u32; 3], mut data: Vec<f32>| {
            for seq in seqs.chunks_exact(4) {
                for head in 0..shape.num_kv_heads {
                    let base = (seq[3] * strides[0] + head * strides[1]) as usize;
                    let valid = base + (seq[2] * dim) as usize;
                    data[valid..base + strides[1] as usize].fill(f32::NAN);
                }
            }
            data
        };
        let slots = (shape.num_seqs * shape.k_strides[0]) as usize;
        let value_slots = (shape.num_seqs * shape.v_strides[0]) as usize;
        let k = cache(shape.head_dim, shape.k_strides, plain(slots, 2));
        let v = cache(shape.value_dim, shape.v_strides, seeded(value_slots, 3));
        // A weight's relative error is its score's absolute error (4 ulp · √D · |s|, |s| < 5 · magnitude²) and that
        // of exp2; it counts twice (weight and sum), for values of magnitude 20.
        let ulp = f64::from(f32::EPSILON);
        let score = 5.0 * f64::from(self.magnitude).powi(2);
        let weight = 4.0 * ulp * f64::from(shape.head_dim).sqrt() * score + 8.0 * ulp;
        let tolerance = Tolerance { abs: 20.0 * weight, rel: 1e-5 };
        let case = TestCase::new(self.name, self.regime, tolerance).input(&plain(len(shape.head_dim), 1));
        let case = if self.f16 {
            let pack = |data: &[f32]| -> Vec<u8> {
                data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
            };
            case.input(&pack(&k)).input(&pack(&v))
        } else {
            case.input(&k).input(&v)
        };
        case.input(&seqs)
            .input(&seeded(shape.num_q_heads as usize, 4))
            .output(self.splits as usize * len(shape.value_dim))
            .output(self.splits as usize * len(1))
    }
}
