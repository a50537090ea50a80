//! Norms of q and k, rotation, and the append of k and v to the cache, in one dispatch.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Element, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rope::{Angles, Rotation, Style, appending, half_or_nan, parts, test_table};
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `rope_append.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Sequences S.
    pub num_seqs: u32,
    /// Query heads Hq.
    pub num_q_heads: u32,
    /// Heads Hkv of keys and of values.
    pub num_kv_heads: u32,
    /// Channels D of a head.
    pub head_dim: u32,
    /// Pairs R/2 that are rotated.
    pub num_pairs: u32,
    /// Rows of a block of the table.
    pub max_positions: u32,
    /// Sequences with more keys than this take the second block of the table.
    pub switch_len: u32,
    /// Added to the mean squares.
    pub eps: f32,
    /// 1 where token t is the only one of sequence t.
    pub one_token_each: u32,
    /// Workgroups along y; set by [`record`].
    pub grid_y: u32,
    /// Elements from one slot of keys to the next.
    pub k_slot: u32,
    /// Elements from one head of keys to the next.
    pub k_head: u32,
    /// Elements from one token of keys to the next.
    pub k_token: u32,
    /// Elements from one slot of values to the next.
    pub v_slot: u32,
    /// Elements from one head of values to the next.
    pub v_head: u32,
    /// Elements from one token of values to the next.
    pub v_token: u32,
    /// Bound of the magnitudes of q, k and v, where there is one.
    pub clip: f32,
}

/// What is done, and in which types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    /// Norms of q and k.
    pub norm: Norm,
    /// Whether q and k behind the norm, and v, are bounded.
    pub clips: bool,
    /// Rotation, if any.
    pub rope: Option<(Style, Angles)>,
    /// Cache of f16, two to a word, or of f32.
    pub f16: bool,
}

/// Norms of q and k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Norm {
    /// None.
    None,
    /// Each head by itself, weights `[D]`.
    PerHead,
    /// All heads of q together, all heads of k together, weights `[Hq D]` and `[Hkv D]`.
    Full,
    /// Each head by itself, less its mean (a layer norm without bias), weights `[Hq D]` and `[Hkv D]`.
    Layer,
    /// Each head by itself behind the rotation, weights `[D]`.
    Rotated,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Projections `[T, (Hq + 2 Hkv) D]`, f32.
    pub qkv: &'a Buffer,
    /// `Seq` of each sequence `[S, 4]`, u32.
    pub seqs: &'a Buffer,
    /// See [`Angles`]; with a rotation only.
    pub table: Option<&'a Buffer>,
    /// Weights of the norms of q and k; with norms only.
    pub norms: Option<(&'a Buffer, &'a Buffer)>,
    /// Queries `[T, Hq D]`, f32.
    pub q: &'a Buffer,
    /// Keys.
    pub k: &'a Buffer,
    /// Values.
    pub v: &'a Buffer,
}

const FILE: &str = "rope/rope_append.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "rope_append",
    bindings: &[
        read("qkv"),
        read("seqs"),
        read("table").in_part(),
        read("norm_q"),
        read("norm_k"),
        read_write("q"),
        read_write("k").in_part(),
        read_write("v").in_part(),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: Some(cost) };

/// The projections once, and what is written of them; a row of the table for each token. Norms' weights are left out.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let [tokens, q_heads, kv_heads, dim, pairs] =
        [p.num_tokens, p.num_q_heads, p.num_kv_heads, p.head_dim, p.num_pairs].map(u64::from);
    let element = if launch.choice.data == (Data::KeysValues { f16: true }) { 2 } else { 4 };
    let heads = 4 * (q_heads + 2 * kv_heads) + 4 * q_heads + element * 2 * kv_heads;
    Cost { bytes: tokens * (dim * heads + 8 * pairs), flops: 0 }
}

/// Appends norms, rotation and the write to the cache.
///
/// # Errors
/// Odd head dims or strides of an f16 cache, more pairs than channels, missing table or weights; as
/// [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, params: Params, mode: Mode) -> Result<(), KernelError> {
    let bad = |field, got: u32, must_be| {
        Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
    };
    rows::positive(SPEC.name, "head_dim", params.head_dim)?;
    if mode.f16 && !strides(&params).iter().all(|s| s.is_multiple_of(2)) {
        return bad("head_dim or a stride", params.head_dim, "even in an f16 cache");
    }
    if mode.rope.is_some() && (params.num_pairs > params.head_dim / 2 || params.num_pairs == 0) {
        return bad("num_pairs", params.num_pairs, "1 to head_dim / 2");
    }
    if mode.rope.is_some() && (args.table.is_none() || params.max_positions == 0) {
        return bad("max_positions", params.max_positions, "positive, with a table");
    }
    if mode.norm != Norm::None && args.norms.is_none() {
        return bad("norm weights", 0, "given with norms");
    }
    let choice = select(rec.caps(), &params, mode);
    let counted = params.num_kv_heads.checked_mul(2).and_then(|kv| kv.checked_add(params.num_q_heads));
    let Some(heads) = counted else {
        return bad("num_kv_heads", params.num_kv_heads, "few enough for 2^32 heads in a row");
    };
    rows::elements(SPEC.name, params.num_tokens, rows::elements(SPEC.name, heads, params.head_dim)?)?;
    let [grid_y, grid_z, _] = rows::row_grid(rec.caps(), params.num_tokens);
    let params = Params { grid_y, ..params };
    let table = args.table.unwrap_or(args.qkv);
    let (norm_q, norm_k) = args.norms.unwrap_or((args.qkv, args.qkv));
    let buffers = [args.qkv, args.seqs, table, norm_q, norm_k, args.q, args.k, args.v];
    rec.dispatch(&SPEC, choice, &params, &buffers, [heads, grid_y, grid_z])
}

fn strides(p: &Params) -> [u32; 7] {
    [p.head_dim, p.k_slot, p.k_head, p.k_token, p.v_slot, p.v_head, p.v_token]
}

fn fits_vec4(p: &Params, mode: Mode) -> bool {
    strides(p).iter().all(|s| s.is_multiple_of(4)) && (mode.rope.is_none() || p.num_pairs.is_multiple_of(4))
}

fn select(caps: &Caps, p: &Params, mode: Mode) -> Choice {
    let (vec4, subgroup) =
        rows::pick_for(caps, SPEC.name, Data::KeysValues { f16: mode.f16 }, fits_vec4(p, mode), true);
    let wg = match mode.norm {
        _ if caps.cpu_variants() => 16,
        Norm::Full => 128,
        _ if p.head_dim <= 128 => 32,
        _ => 64,
    };
    choice(wg, vec4, subgroup, mode)
}

fn choice(wg: u32, vec4: bool, subgroup: bool, mode: Mode) -> Choice {
    let (style, angles) = mode.rope.map_or((0, Angles::Table), |(style, angles)| (style.code(), angles));
    let norm: u32 = match mode.norm {
        Norm::None => 0,
        Norm::PerHead => 1,
        Norm::Full => 2,
        Norm::Layer => 3,
        Norm::Rotated => 4,
    };
    let selection =
        Selection::new().set("WG", wg).set("STYLE", style).set("NORM", norm).set("CLIPS", mode.clips);
    let mut selection = parts(selection, angles, vec4);
    if vec4 {
        selection = selection.part("io", "kv_cache/io4.wgsl");
    }
    let stores = ["kv_cache/store_f32x4.wgsl", "kv_cache/store_f16.wgsl", "kv_cache/store_f16x4.wgsl"];
    appending(FILE, wg, (vec4, subgroup), selection, mode.f16, ("store_f32", stores))
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    let ropes = Style::ALL.iter().flat_map(|&s| [Some((s, Angles::Table)), Some((s, Angles::Computed))]);
    for rope in ropes.chain([None]) {
        for norm in [Norm::None, Norm::PerHead, Norm::Full, Norm::Layer, Norm::Rotated] {
            for f16 in [false, true] {
                for (vec4, subgroup) in rows::widths() {
                    let mode = Mode { norm, clips: norm == Norm::Full, rope, f16 };
                    all.push(choice(32, vec4, subgroup, mode));
                }
            }
        }
    }
    let mode =
        Mode { norm: Norm::PerHead, clips: false, rope: Some((Style::Half, Angles::Table)), f16: true };
    for wg in [16, 64, 128] {
        all.extend(rows::widths().map(|(vec4, subgroup)| choice(wg, vec4, subgroup, mode)));
    }
    all
}

fn clamped(x: Vec<f64>, bound: f64) -> Vec<f64> {
    x.into_iter().map(|v| v.clamp(-bound, bound)).collect()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let rotation = Rotation::new(call, 2, p.num_pairs, p.max_positions);
    let norm = call.selection.get_u32("NORM").unwrap_or_default();
    let clip = if call.selection.get_bool("CLIPS") { f64::from(p.clip) } else { f64::INFINITY };
    let f16 = call.selection.get_part("store_f32").is_some_and(|part| part.contains("f16"));
    let (qkv, seqs): (Vec<f32>, Vec<u32>) = (call.get(0), call.get(1));
    let weights: [Vec<f32>; 2] = [call.get(3), call.get(4)];
    let mut q: Vec<f32> = call.get(5);
    let cache = |i: usize| -> Vec<f32> {
        if f16 { call.get::<half::f16>(i).iter().map(|v| v.to_f32()).collect() } else { call.get(i) }
    };
    let (mut k, mut v) = (cache(6), cache(7));
    let (d, num_q, num_kv) = (p.head_dim as usize, p.num_q_heads as usize, p.num_kv_heads as usize);
    for seq in seqs.chunks_exact(4).take(p.num_seqs as usize) {
        let [q_base, q_len, kv_len, slot] = [seq[0], seq[1], seq[2], seq[3]];
        for i in 0..q_len {
            let (t, position) = ((q_base + i) as usize, kv_len - q_len + i);
            let row = &qkv[t * (num_q + 2 * num_kv) * d..][..(num_q + 2 * num_kv) * d];
            let block = u32::from(kv_len > p.switch_len);
            for head in 0..num_q + 2 * num_kv {
                let x: Vec<f64> = row[head * d..(head + 1) * d].iter().map(|&x| f64::from(x)).collect();
                if head >= num_q + num_kv {
                    let at =
                        slot * p.v_slot + (head - num_q - num_kv) as u32 * p.v_head + position * p.v_token;
                    for (v, x) in v[at as usize..].iter_mut().zip(x) {
                        *v = x.clamp(-clip, clip) as f32;
                    }
                    continue;
                }
                let is_k = head >= num_q;
                let offset = match norm {
                    2 | 3 => (if is_k { head - num_q } else { head }) * d,
                    _ => 0,
                };
                let whole = match (norm, is_k) {
                    (2, false) => &row[..num_q * d],
                    (2, true) => &row[num_q * d..(num_q + num_kv) * d],
                    _ => &row[head * d..(head + 1) * d],
                };
                let rotated = (norm == 4).then(|| rotation.apply(&clamped(x.clone(), clip), position, block));
                let whole: Vec<f64> = rotated.unwrap_or_else(|| whole.iter().map(|&v| v.into()).collect());
                let len = whole.len() as f64;
                let sum: f64 = whole.iter().sum();
                let mean = if norm == 3 { sum / len } else { 0.0 };
                let mean_sq = whole.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len;
                let scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
                let weights = &weights[usize::from(is_k)];
                let y: Vec<f64> = match norm {
                    0 => rotation.apply(&clamped(x, clip), position, block),
                    4 => whole.iter().zip(weights).map(|(x, &w)| x * scale * f64::from(w)).collect(),
                    _ => x
                        .iter()
                        .enumerate()
                        .map(|(c, x)| (x - mean) * scale * f64::from(weights[offset + c]))
                        .collect(),
                };
                let y = if matches!(norm, 0 | 4) {
                    y
                } else {
                    rotation.apply(&clamped(y, clip), position, block)
                };
                let (out, at) = if is_k {
                    let kv_head = (head - num_q) as u32;
                    (&mut k, (slot * p.k_slot + kv_head * p.k_head + position * p.k_token) as usize)
                } else {
                    (&mut q, (t * num_q + head) * d)
                };
                for (out, y) in out[at..].iter_mut().zip(y) {
                    *out = y as f32;
                }
            }
        }
    }
    call.put(5, &q);
    for (i, data) in [(6, k), (7, v)] {
        if f16 {
            call.put(i, &data.iter().map(|&v| half_or_nan(v)).collect::<Vec<_>>());
        } else {
            call.put(i, &data);
        }
    }
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    const CAPACITY: u32 = 12;
    let half = |angles| Some((Style::Half, angles));
    // heads of q, of k and v, channels, pairs, sequences (q_len, kv_len, slot), how
    let case = |(name, regime): (&str, Regime),
                heads: [u32; 2],
                dims: [u32; 2],
                seqs: &[[u32; 3]],
                modes: &[Mode]| {
        let [num_q_heads, num_kv_heads] = heads;
        let [head_dim, num_pairs] = dims;
        let angles = modes[0].rope.map_or(Angles::Table, |(_, angles)| angles);
        let f16 = modes[0].f16;
        let num_tokens: u32 = seqs.iter().map(|s| s[0]).sum();
        let mut q_base = 0;
        let mut packed = Vec::new();
        for &[q_len, kv_len, slot] in seqs {
            packed.extend([q_base, q_len, kv_len, slot]);
            q_base += q_len;
        }
        // Keys lie head by head, values token by token.
        let params = Params {
            num_tokens,
            num_seqs: seqs.len() as u32,
            num_q_heads,
            num_kv_heads,
            head_dim,
            num_pairs,
            max_positions: CAPACITY,
            switch_len: 8,
            eps: 1e-6,
            one_token_each: (num_tokens == seqs.len() as u32).into(),
            grid_y: num_tokens.min(3),
            k_slot: num_kv_heads * CAPACITY * head_dim,
            k_head: CAPACITY * head_dim,
            k_token: head_dim,
            v_slot: num_kv_heads * CAPACITY * head_dim,
            v_head: head_dim,
            v_token: num_kv_heads * head_dim,
            clip: 0.75,
        };
        let cache = (3 * num_kv_heads * CAPACITY * head_dim) as usize;
        let before = seeded(cache, 9);
        let len = (num_tokens * (num_q_heads + 2 * num_kv_heads) * head_dim) as usize;
        let of_all = modes.iter().any(|m| matches!(m.norm, Norm::Full | Norm::Layer));
        let weight_heads = |heads: u32| (head_dim * if of_all { heads } else { 1 }) as usize;
        let rel = if f16 { 1.1e-3 } else { 8e-6 };
        let mut case = TestCase::new(name, regime, Tolerance { abs: if f16 { 2e-4 } else { 2e-5 }, rel })
            .input(&seeded(len, 1))
            .input(&packed)
            .input(&test_table(angles, num_pairs, CAPACITY))
            .input(&seeded(weight_heads(num_q_heads), 2))
            .input(&seeded(weight_heads(num_kv_heads), 3))
            .output((num_tokens * num_q_heads * head_dim) as usize);
        for _ in 0..2 {
            case = if f16 {
                let halves: Vec<half::f16> = before.iter().map(|&v| half::f16::from_f32(v)).collect();
                case.in_out(&halves, Element::F16)
            } else {
                case.in_out(&before, Element::F32)
            };
        }
        let grid = [num_q_heads + 2 * num_kv_heads, params.grid_y, num_tokens.div_ceil(params.grid_y)];
        for (i, &mode) in modes.iter().enumerate() {
            for (vec4, subgroup) in rows::widths() {
                // Without norms the two reductions are the same kernel; one mode of a case also runs scalar.
                let fits = fits_vec4(&params, mode);
                let scalar_too = i == 0 && head_dim < 128;
                if vec4 && !fits || !vec4 && fits && !scalar_too || subgroup && mode.norm == Norm::None {
                    continue;
                }
                let wg = if mode.norm == Norm::Full { 16 } else { 32 };
                case = case.launch(choice(wg, vec4, subgroup, mode), &params, grid);
            }
        }
        case
    };
    let mode = |norm, rope, f16| Mode { norm, clips: false, rope, f16 };
    let clipped = |norm, rope| Mode { clips: true, ..mode(norm, rope, false) };
    let ragged = [[3, 5, 2], [1, 9, 0], [4, 12, 1]];
    let (table, computed) = (half(Angles::Table), half(Angles::Computed));
    let beyond_f16 = {
        let mut case =
            case(("beyond_f16", PartialTile), [6, 2], [20, 0], &ragged, &[mode(Norm::None, None, true)]);
        let x: Vec<f32> = bytemuck::pod_collect_to_vec(&case.buffers[0].data);
        let x: Vec<f32> = x.iter().map(|v| 5e4 * v).collect(); // up to 1e6
        case.buffers[0].data = bytemuck::cast_slice(&x).to_vec();
        case
    };
    vec![
        case(
            ("decode", ManyTiles),
            [4, 2],
            [96, 40],
            &[[1, 7, 1], [1, 12, 0]],
            &[mode(Norm::PerHead, table, true)],
        ),
        case(("one_token", OneTile), [1, 1], [96, 40], &[[1, 7, 1]], &[mode(Norm::PerHead, table, true)]),
        case(("partial_f16", PartialTile), [3, 1], [20, 8], &ragged, &[mode(Norm::PerHead, table, true)]),
        case(("partial_f32", PartialTile), [3, 1], [20, 8], &ragged, &[mode(Norm::PerHead, table, false)]),
        case(("phi3_f16", Model), [32, 32], [96, 48], &[[1, 12, 2]], &[mode(Norm::PerHead, table, true)]),
        case(("phi3_f32", Model), [32, 32], [96, 48], &[[1, 12, 2]], &[mode(Norm::PerHead, table, false)]),
        case(
            ("ragged", ManyTiles),
            [4, 2],
            [16, 8],
            &ragged,
            &[
                mode(Norm::None, table, false),
                mode(Norm::PerHead, Some((Style::Interleaved, Angles::Table)), false),
                mode(Norm::None, Some((Style::InterleavedToHalf, Angles::Table)), false),
            ],
        ),
        case(("full_norm", OneTile), [3, 1], [8, 4], &ragged, &[mode(Norm::Full, table, false)]),
        case(
            ("layer_norm", ManyTiles),
            [4, 2],
            [16, 8],
            &ragged,
            &[mode(Norm::Layer, Some((Style::Interleaved, Angles::Table)), false)],
        ),
        case(("odd_layer_norm", PartialTile), [3, 1], [13, 5], &ragged, &[mode(Norm::Layer, table, false)]),
        case(("clipped", PartialTile), [3, 1], [20, 8], &ragged, &[clipped(Norm::Full, table)]),
        case(("clipped_plain", ManyTiles), [4, 2], [16, 8], &ragged, &[clipped(Norm::None, table)]),
        case(("norm_behind", ManyTiles), [4, 2], [16, 8], &ragged, &[mode(Norm::Rotated, table, false)]),
        case(
            ("odd_norm_behind", PartialTile),
            [3, 1],
            [13, 5],
            &ragged,
            &[mode(Norm::Rotated, table, false)],
        ),
        case(("no_rope", PartialTile), [6, 2], [20, 0], &ragged, &[mode(Norm::None, None, true)]),
        case(
            ("computed_partial", ManyTiles),
            [3, 3],
            [80, 16],
            &ragged,
            &[mode(Norm::PerHead, computed, false)],
        ),
        case(("even_f16", PartialTile), [3, 1], [10, 3], &ragged, &[mode(Norm::PerHead, table, true)]),
        case(
            ("odd", PartialTile),
            [3, 1],
            [13, 5],
            &ragged,
            &[mode(Norm::None, table, false), mode(Norm::PerHead, table, false)],
        ),
        case(("llama_8b", Model), [32, 8], [128, 64], &[[1, 12, 2]], &[mode(Norm::None, table, true)]),
        beyond_f16,
    ]
}
