//! Linear attention whose state decays (lightning attention): the tokens of a sequence in order, one state for each head.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Element, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Largest head dim: a workgroup holds that many rows of a state in registers.
pub const MAX_DIM: u32 = 256;

/// Same layout as `Params` in `linear_attention.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Heads H.
    pub num_heads: u32,
    /// Channels D of a head.
    pub head_dim: u32,
    /// Elements from one slot of the states to the next.
    pub slot: u32,
}

/// Sizes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens T.
    pub num_tokens: u32,
    /// Sequences S.
    pub num_seqs: u32,
    /// Heads H.
    pub num_heads: u32,
    /// Channels D of queries, keys and values.
    pub head_dim: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Queries, keys and values of each head `[T, H, 3, D]`, f32.
    pub qkv: &'a Buffer,
    /// Decay of each head `[H]`: states are multiplied with `exp(-slope)` before a token is added.
    pub slopes: &'a Buffer,
    /// `Seq` of each sequence `[S, 4]`, u32.
    pub seqs: &'a Buffer,
    /// States `[slots, H, D, D]`, f32. Those of sequences that begin are not read.
    pub states: &'a Buffer,
    /// Result `[T, H, D]`, f32.
    pub o: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "linear_attention",
    bindings: &[
        read("qkv").in_part(),
        read("slopes"),
        read("seqs"),
        read_write("states").in_part(),
        read_write("o").in_part(),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches, cases_of: None, tuning: None, cost: Some(cost) };

/// Rows of q, k, v and of the result once, the state of every head of every sequence twice.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let [tokens, heads, dim] = [p.num_tokens, p.num_heads, p.head_dim].map(u64::from);
    let seqs = u64::from(launch.grid[2]);
    Cost {
        bytes: 16 * tokens * heads * dim + 8 * seqs * heads * dim * dim,
        flops: 4 * tokens * heads * dim * dim,
    }
}

/// Columns of a state that a workgroup takes.
const COLUMNS: u32 = 32;

/// Appends `S_t = exp(-slope) S_{t-1} + k_t ⊗ v_t`, `o_t = q_t S_t` of each token, in the order of each sequence. Where a
/// sequence goes on (`kv_len > q_len`), its state is that which the last call left in its slot.
///
/// # Errors
/// No heads, head dims over [`MAX_DIM`], more elements than 32 bits count, as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: Shape) -> Result<(), KernelError> {
    let Shape { num_tokens, num_seqs, num_heads, head_dim } = shape;
    rows::positive(SPEC.name, "num_heads", num_heads)?;
    if head_dim == 0 || head_dim > MAX_DIM {
        let must_be = "1 to 256";
        let got = head_dim.into();
        return Err(KernelError::BadParam { kernel: SPEC.name, field: "head_dim", got, must_be });
    }
    let slot = rows::elements(SPEC.name, num_heads, head_dim * head_dim)?;
    let row = rows::elements(SPEC.name, num_heads, 3 * head_dim)?;
    rows::elements(SPEC.name, num_tokens, row)?;
    let [t, s, h, d] = [num_tokens, num_seqs, num_heads, head_dim].map(u64::from);
    rows::check_sizes(
        SPEC.name,
        [
            ("qkv", Some(args.qkv), 12 * t * h * d),
            ("slopes", Some(args.slopes), 4 * h),
            ("seqs", Some(args.seqs), 16 * s),
            ("states", Some(args.states), 4 * h * d * d),
            ("o", Some(args.o), 4 * t * h * d),
        ],
    )?;
    let choice = select(rec.caps(), head_dim);
    let params = Params { num_tokens, num_heads, head_dim, slot };
    let buffers = [args.qkv, args.slopes, args.seqs, args.states, args.o];
    rec.dispatch(&SPEC, choice, &params, &buffers, [head_dim.div_ceil(COLUMNS), num_heads, num_seqs])
}

fn select(caps: &Caps, head_dim: u32) -> Choice {
    let (vec4, _) = rows::pick(caps, SPEC.name, head_dim.is_multiple_of(4), false);
    choice(head_dim, vec4)
}

fn choice(head_dim: u32, vec4: bool) -> Choice {
    let selection = Selection::new().set("ROWS4", head_dim.div_ceil(64));
    Choice {
        file: "attention/linear_attention.wgsl",
        variant: rows::variant(vec4, false),
        selection: if vec4 { selection } else { selection.part("io", "attention/linear_io_scalar.wgsl") },
        invocations: 128,
        workgroup_bytes: 4 * 128 * 16,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

fn choices() -> Vec<Choice> {
    (1..=4).flat_map(|n| [true, false].map(|vec4| choice(64 * n, vec4))).collect()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (qkv, slopes, seqs): (Vec<f32>, Vec<f32>, Vec<u32>) = (call.get(0), call.get(1), call.get(2));
    let (mut states, mut o): (Vec<f32>, Vec<f32>) = (call.get(3), call.get(4));
    let (heads, d) = (p.num_heads as usize, p.head_dim as usize);
    for seq in seqs.chunks_exact(4) {
        let [q_base, q_len, kv_len, slot] = [seq[0], seq[1], seq[2], seq[3]].map(|n| n as usize);
        for head in 0..heads {
            let kept = &mut states[slot * p.slot as usize + head * d * d..][..d * d];
            let mut state: Vec<f64> = kept.iter().map(|&v| f64::from(v)).collect();
            if kv_len == q_len {
                state.fill(0.0);
            }
            let decay = f64::from(-slopes[head]).exp();
            for t in q_base..q_base + q_len {
                let row = &qkv[(t * heads + head) * 3 * d..][..3 * d];
                let (q, rest) = row.split_at(d);
                let (k, v) = rest.split_at(d);
                for (row, &k) in state.chunks_exact_mut(d).zip(k) {
                    row.iter_mut().zip(v).for_each(|(s, &v)| *s = *s * decay + f64::from(k) * f64::from(v));
                }
                for (c, o) in o[(t * heads + head) * d..][..d].iter_mut().enumerate() {
                    *o = q
                        .iter()
                        .zip(state.chunks_exact(d))
                        .map(|(&q, row)| f64::from(q) * row[c])
                        .sum::<f64>() as f32;
                }
            }
            kept.iter_mut().zip(&state).for_each(|(kept, &s)| *kept = s as f32);
        }
    }
    call.put(3, &states);
    call.put(4, &o);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    // Sequences are (rows, keys, slot).
    let ragged: &[[u32; 3]] = &[[3, 5, 2], [1, 1, 0], [9, 9, 1]];
    vec![
        case(("one_token", OneTile), [1, 16], &[[1, 1, 0]]),
        case(("odd", PartialTile), [3, 13], ragged),
        case(("partial", PartialTile), [2, 20], ragged),
        case(("columns", ManyTiles), [2, 96], &[[17, 17, 1], [5, 9, 0]]),
        case(("odd_columns", ManyTiles), [1, 130], &[[6, 9, 0]]),
        case(("widest", ManyTiles), [1, 256], &[[2, 9, 0]]),
        case(("minimax", Model), [4, 128], &[[1, 7, 1], [1, 1, 0]]),
    ]
}

fn case((name, regime): (&str, Regime), [heads, dim]: [u32; 2], sequences: &[[u32; 3]]) -> TestCase {
    let mut seqs = Vec::new();
    let mut tokens = 0;
    for &[q_len, kv_len, slot] in sequences {
        seqs.extend([tokens, q_len, kv_len, slot]);
        tokens += q_len;
    }
    let slot = heads * dim * dim;
    let params = Params { num_tokens: tokens, num_heads: heads, head_dim: dim, slot };
    // No outliers: products of three would hide all other rows.
    let plain = |len: u32, seed| -> Vec<f32> {
        seeded(len as usize, seed).iter().map(|v| v.clamp(-1.0, 1.0)).collect()
    };
    let slopes: Vec<f32> = (0..heads).map(|h| 0.5f32.powi(h as i32 + 1)).collect();
    // States of sequences that begin are whatever was there before.
    let mut states = plain(3 * slot, 2);
    for &[q_len, kv_len, at] in sequences {
        if q_len == kv_len {
            states[(at * slot) as usize..][..slot as usize].fill(f32::NAN);
        }
    }
    // Rows of D products with elements of a state, which are sums of a product for each token.
    let terms = (dim * 9) as usize;
    let case = TestCase::new(name, regime, Tolerance::f32_sum(terms, 2.0))
        .input(&plain(tokens * heads * 3 * dim, 1))
        .input(&slopes)
        .input(&seqs)
        .in_out(&states, Element::F32)
        .output((tokens * heads * dim) as usize);
    let grid = [dim.div_ceil(COLUMNS), heads, sequences.len() as u32];
    let widths = [true, false].into_iter().filter(|vec4| !vec4 || dim.is_multiple_of(4));
    widths.fold(case, |case, vec4| case.launch(choice(dim, vec4), &params, grid))
}

/// MiniMax-Text-01: 64 heads of 128.
fn benches() -> Vec<BenchCase> {
    BENCHES
        .iter()
        .map(|&(name, tokens)| {
            let (heads, dim) = (64usize, 128usize);
            let rows = tokens as usize * heads * dim;
            let states = heads * dim * dim;
            BenchCase {
                name: name.into(),
                bytes: 4 * (4 * rows + 2 * states) as u64,
                written: 4 * (rows + states) as u64,
                flops: 4 * (rows * dim) as u64,
                arithmetic: Arithmetic::F32,
                buffers: vec![
                    BenchBuffer::F32(3 * rows),
                    BenchBuffer::F32(heads),
                    BenchBuffer::U32(vec![0, tokens, tokens + 1, 0]),
                    BenchBuffer::F32(states),
                    BenchBuffer::F32(rows),
                ],
                launches: bench_launch,
            }
        })
        .collect()
}

const BENCHES: [(&str, u32); 2] = [("64x128x1", 1), ("64x128x512", 512)];

fn bench_launch(caps: &Caps, name: &str) -> Vec<Launch> {
    let of = |&(_, tokens): &(&str, u32)| {
        let params = Params { num_tokens: tokens, num_heads: 64, head_dim: 128, slot: 64 * 128 * 128 };
        Launch::new(select(caps, 128), &params, [4, 64, 1])
    };
    BENCHES.iter().filter(|(bench, _)| *bench == name).map(of).collect()
}
