//! What prefill and decode share for being measured.

use std::fmt;

use super::{Params, Shape};
use crate::caps::Caps;
use crate::case::{POISON, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::spec::{Contents, Cost, KernelSpec, Step, Way, Workload};

/// Keys that a row of decode sees when it is timed, at most.
const KEYS: u32 = 512;
/// Rows that the twin computes.
const SAMPLE_ROWS: u32 = 16;

/// A choice by its name: `rows_subgroup 8x4`: variant, lanes and the rows of each; `tiles 4`: rows of an invocation, or the
/// values that it loads together.
pub(super) struct Named(pub Choice);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let get = |name| self.0.selection.get_u32(name);
        f.write_str(self.0.variant)?;
        match (get("LANES").filter(|_| !self.0.variant.starts_with("tiles")), get("R")) {
            (Some(lanes), Some(rows)) => write!(f, " {lanes}x{rows}"),
            (Some(lanes), None) => write!(f, " {lanes}"),
            _ => get("RT").or(get("VALUE_STEPS")).map_or(Ok(()), |count| write!(f, " {count}")),
        }
    }
}

/// `8/2x64x64`: heads of queries and of keys, channels of keys and of values.
pub(super) fn heads(shape: &Shape) -> String {
    let Shape { num_q_heads, num_kv_heads, head_dim, value_dim, .. } = shape;
    format!("{num_q_heads}/{num_kv_heads}x{head_dim}x{value_dim}")
}

/// Those of some choices that a device runs in its tier, each once, what failed its self-test apart.
pub(super) fn legal(caps: &Caps, kernel: &str, mut choices: Vec<Choice>) -> Vec<Named> {
    choices.dedup();
    let may = |c: &Choice| {
        let has_subgroups = c.requires.lanes.is_none() || caps.subgroups();
        has_subgroups && caps.runs(c) && !caps.is_blocked(kernel, c.variant, c.data)
    };
    choices.into_iter().filter(may).map(Named).collect()
}

/// The shape of a recorded launch, of sequences of `rows` each (0: of all that there are), with a cache of no more keys
/// than are timed.
pub(super) fn recorded(launch: &Launch, rows: u32) -> Option<(Shape, Params)> {
    let Data::KeysValues { f16 } = launch.choice.data else { return None };
    let params: Params = bytemuck::pod_read_unaligned(launch.params.get(..size_of::<Params>())?);
    let p = &params;
    let num_seqs = launch.grid[2];
    let max_q_len = if rows == 0 { p.num_tokens / num_seqs.max(1) } else { rows };
    let capacity = p.k_slot.checked_div(p.num_kv_heads.checked_mul(p.head_dim)?)?;
    let max_kv_len = if rows == 0 { max_q_len } else { capacity.min(KEYS) };
    // The layout stays: heads apart, or tokens.
    let strides = |dim: u32, head: u32, token: u32| {
        let [head, token] = if head > token { [max_kv_len * dim, dim] } else { [dim, p.num_kv_heads * dim] };
        [p.num_kv_heads * max_kv_len * dim, head, token]
    };
    let shape = Shape {
        num_q_heads: p.num_q_heads,
        num_kv_heads: p.num_kv_heads,
        head_dim: p.head_dim,
        value_dim: p.value_dim,
        k_strides: strides(p.head_dim, p.k_head, p.k_token),
        v_strides: strides(p.value_dim, p.v_head, p.v_token),
        f16,
        num_tokens: num_seqs * max_q_len,
        num_seqs,
        max_q_len,
        max_kv_len,
        scale: p.scale,
        softcap: launch.choice.selection.get_bool("SOFTCAP").then_some(p.softcap),
        window: (p.window > 0).then_some(p.window),
        causal: p.causal != 0,
    };
    Some((shape, params))
}

/// The rule's choice first, then the candidates that differ from it.
pub(super) fn ways(
    spec: &'static KernelSpec,
    rule: Choice,
    candidates: Vec<Named>,
    launch: impl Fn(&Choice) -> (Params, [u32; 3]),
) -> Vec<Way> {
    let others: Vec<Named> = candidates.into_iter().filter(|c| c.0 != rule).collect();
    let all = std::iter::once(Named(rule)).chain(others);
    all.map(|named| {
        let (params, grid) = launch(&named.0);
        let name = named.to_string();
        let launch = Launch::new(named.0, &params, grid);
        Way { name, steps: vec![Step { spec, launch, bindings: (0..spec.bindings.len()).collect() }] }
    })
    .collect()
}

/// Data of a shape. The twin computes the first rows of one sequence: those see the same keys in a shorter one.
pub(super) fn workload(shape: &Shape, choice: Choice, params: Params) -> Workload {
    // Without the causal mask a window lies around a row, whose position is counted from the end.
    let is_cut = shape.num_seqs == 1 && (shape.causal || shape.window.is_none());
    let rows = if is_cut { shape.max_q_len.min(SAMPLE_ROWS) } else { shape.max_q_len };
    let keys = shape.max_kv_len - if shape.causal { shape.max_q_len - rows } else { 0 };
    let seqs = |rows: u32, keys: u32| -> Vec<[u32; 4]> {
        (0..shape.num_seqs).map(|i| [i * rows, rows, keys, i]).collect()
    };
    let plain = |len: u32, seed: u32| -> Vec<f32> {
        seeded(len as usize, seed).iter().map(|v| v.clamp(-1.0, 1.0)).collect()
    };
    let cache = |strides: [u32; 3], seed: u32| {
        let values = plain(shape.num_seqs * strides[0], seed);
        if shape.f16 {
            let bytes: Vec<u8> = values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
            Contents::once(&bytes)
        } else {
            Contents::once(&values)
        }
    };
    let splits = params.splits.max(1) as usize;
    let heads = shape.num_tokens * shape.num_q_heads;
    let poison = |len: usize| Contents::once(&vec![POISON; len]);
    let whole_rows = shape.max_q_len.min(shape.num_tokens);
    let buffers = vec![
        Contents::once(&plain(heads * shape.head_dim, 1)),
        cache(shape.k_strides, 2),
        cache(shape.v_strides, 3),
        Contents::once(&seqs(whole_rows, shape.max_kv_len)),
        Contents::once(&plain(shape.num_q_heads, 4)),
        poison(splits * (heads * shape.value_dim) as usize),
        poison(splits * heads as usize),
    ];
    let columns = (shape.num_q_heads * shape.value_dim) as usize;
    let whole = [splits * shape.num_tokens as usize, columns];
    // Splits lie one behind the other: then all of it is the sample.
    let all = shape.num_seqs > 1 || splits > 1 || rows == shape.max_q_len;
    let sample_rows = if all { whole[0] } else { rows as usize };
    let sample = Launch::new(choice, &params, [1; 3]);
    let sample_seqs = if all { None } else { Some(seqs(rows, keys)) };
    Workload {
        buffers,
        result: 5,
        sample,
        sample_buffer: sample_seqs.map(|seqs| (3, bytemuck::cast_slice(&seqs).to_vec())),
        sample_shape: [sample_rows, columns],
        shape: whole,
        repeats: false,
    }
}

/// Queries, the keys and values that are seen, results; two operations for each channel of each pair of row and key.
/// A sequence of decode has `keys` keys, one of prefill those of its rows.
pub(super) fn cost(launch: &Launch, _: &[u64], keys: u32) -> Cost {
    let Some(bytes) = launch.params.get(..size_of::<Params>()) else { return Cost::default() };
    let p: Params = bytemuck::pod_read_unaligned(bytes);
    let seqs = u64::from(launch.grid[2].max(1));
    let rows = u64::from(p.num_tokens) / seqs;
    let is_decode = p.num_tokens == launch.grid[2];
    let keys = if is_decode { keys.into() } else { rows };
    let window = if p.window > 0 { u64::from(p.window) } else { u64::MAX };
    // Of causal rows the first sees one key.
    let pairs = if is_decode {
        seqs * keys.min(window)
    } else if p.causal != 0 {
        seqs * (1..=rows).map(|keys| keys.min(window)).sum::<u64>()
    } else {
        seqs * rows * keys.min(window)
    };
    let seen = if is_decode { keys.min(window) } else { keys };
    let element = if launch.choice.data == (Data::KeysValues { f16: true }) { 2 } else { 4 };
    let [heads, kv_heads, dim, value_dim] =
        [p.num_q_heads, p.num_kv_heads, p.head_dim, p.value_dim].map(u64::from);
    let splits = u64::from(p.splits.max(1));
    let tokens = u64::from(p.num_tokens);
    Cost {
        bytes: 4 * tokens * heads * (dim + splits * (value_dim + 1))
            + element * seqs * seen * kv_heads * (dim + value_dim),
        flops: 2 * pairs * heads * (dim + value_dim),
    }
}
