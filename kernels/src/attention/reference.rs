//! The definition, in f64: what prefill and decode must give.

use crate::attention::{EMPTY_LSE, Params};
use crate::twin::TwinCall;

/// Splits start at multiples of this many keys: `SPLIT_ALIGN` of `split.wgsl`.
const SPLIT_ALIGN: u64 = 64;

fn elements(call: &TwinCall<'_>, buffer: usize) -> Vec<f32> {
    if call.selection.get_part("kv").is_some_and(|part| part.contains("f16")) {
        call.get::<half::f16>(buffer).iter().map(|v| v.to_f32()).collect()
    } else {
        call.get(buffer)
    }
}

/// Keys that a row sees.
fn visible(p: &Params, kv_len: u64, q_len: u64, token: u64) -> (u64, u64) {
    let position = kv_len as i64 - q_len as i64 + token as i64;
    let hi = if p.causal != 0 { (position + 1).clamp(0, kv_len as i64) } else { kv_len as i64 };
    let lo = if p.window != 0 { (position + 1 - i64::from(p.window)).max(0) } else { 0 };
    (lo as u64, hi as u64)
}

pub(super) fn attention(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (q, k, v) = (call.get::<f32>(0), elements(call, 1), elements(call, 2));
    let (seqs, sinks): (Vec<u32>, Vec<f32>) = (call.get(3), call.get(4));
    let (mut o, mut lse): (Vec<f32>, Vec<f32>) = (call.get(5), call.get(6));
    let [heads, dim, value_dim] = [p.num_q_heads, p.head_dim, p.value_dim].map(u64::from);
    let group = u64::from(p.num_q_heads / p.num_kv_heads);
    for seq in seqs.chunks_exact(4) {
        let [q_base, q_len, kv_len, slot] = [seq[0], seq[1], seq[2], seq[3]].map(u64::from);
        for token in 0..q_len {
            let (lo, hi) = visible(&p, kv_len, q_len, token);
            let share = hi.saturating_sub(lo).div_ceil(u64::from(p.splits));
            let chunk = share.next_multiple_of(SPLIT_ALIGN);
            for head in 0..heads {
                for split in 0..u64::from(p.splits) {
                    let first = (lo + split * chunk).min(hi.max(lo));
                    let last = if p.splits == 1 { hi } else { (first + chunk).min(hi) };
                    let place = |strides: [u32; 3], j: u64| {
                        let [slots, heads, tokens] = strides.map(u64::from);
                        (slot * slots + head / group * heads + j * tokens) as usize
                    };
                    let row = (q_base + token) * heads + head;
                    let q = &q[(row * dim) as usize..][..dim as usize];
                    let mut scores: Vec<f64> = (first..last)
                        .map(|j| {
                            let k = &k[place([p.k_slot, p.k_head, p.k_token], j)..][..dim as usize];
                            let product: f64 =
                                q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                            let score = product * f64::from(p.scale);
                            let cap = f64::from(p.softcap);
                            if p.softcap > 0.0 { cap * (score / cap).tanh() } else { score }
                        })
                        .collect();
                    let sink = (p.has_sinks != 0 && p.splits == 1).then(|| f64::from(sinks[head as usize]));
                    let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
                    for s in &mut scores {
                        *s = (*s - max).exp();
                    }
                    let sum = scores.iter().sum::<f64>() + sink.map_or(0.0, |z| (z - max).exp());
                    let row = (split * u64::from(p.num_tokens) * heads + row) as usize;
                    lse[row] = if sum > 0.0 { (max + sum.ln()) as f32 } else { EMPTY_LSE };
                    for c in 0..value_dim as usize {
                        let weighted: f64 = (first..last)
                            .zip(&scores)
                            .map(|(j, w)| w * f64::from(v[place([p.v_slot, p.v_head, p.v_token], j) + c]))
                            .sum();
                        o[row * value_dim as usize + c] =
                            if sum > 0.0 { (weighted / sum) as f32 } else { 0.0 };
                    }
                }
            }
        }
    }
    call.put(5, &o);
    call.put(6, &lse);
}
