//! Attention against independent results. Not covered: `alibi` (additive bias), `paged_decode` (page tables).

use girih_kernels::testing::seeded;
use girih_ops::{
    Attention, Batch, Chunk, DType, Frame, Gpu, KvSize, KvView, LatentAppend, LatentSize, Matrix, OpError,
    RopeFreqs, RopeStyle, RopeTable, Tensor, WeightType, attention_with_lse, latent_append, linear_attention,
    linear_by_expert,
};
use girih_tests::goldens::{self, Case, assert_close};
use girih_tests::on_device;

const NOT_COVERED: [&str; 2] = ["alibi", "paged_decode"];

/// One sequence: rows `[Tq, Hq, D]` and the keys that they may see `[Tk, Hkv, D]`.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
    lse: Option<Vec<f32>>,
    q_len: u32,
    kv_len: u32,
}

/// `[H, T, D]` at `data` → `[T, H, D]`.
fn tokens_first(data: &[f32], [heads, tokens, dim]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len());
    for token in 0..tokens {
        for head in 0..heads {
            out.extend_from_slice(&data[(head * tokens + token) * dim..][..dim]);
        }
    }
    out
}

fn padded(case: &Case<'_>) -> (Vec<Sequence>, [u32; 4]) {
    let ((qs, q), (ks, k), (vs, v)) = (case.f32("q"), case.f32("k"), case.f32("v"));
    let (_, out) = case.f32("out");
    let lse = case.has("lse").then(|| case.f32("lse").1);
    let [hq, tq, d] = [qs[1], qs[2], qs[3]].map(|n| n as usize);
    let [hkv, tk, dv] = [ks[1], ks[2], vs[3]].map(|n| n as usize);
    let mask = case.has("kvmask").then(|| case.ints("kvmask"));
    let sequences = (0..qs[0] as usize)
        .map(|b| {
            let keep: Vec<bool> =
                mask.as_ref().map_or(vec![true; tk], |m| m[b * tk..][..tk].iter().map(|&x| x != 0).collect());
            // Positions are counted from the end: keys may be left out at the start, or anywhere without a mask
            // that depends on them.
            let suffix = keep.iter().skip_while(|&&x| !x).all(|&x| x);
            let positionless = !case.flag("causal") && case.number("window").is_none();
            assert!(suffix || positionless, "{}: kvmask with holes", case.name);
            let compact = |data: &[f32], dim: usize| -> Vec<f32> {
                let rows = tokens_first(&data[b * hkv * tk * dim..][..hkv * tk * dim], [hkv, tk, dim]);
                rows.chunks_exact(hkv * dim)
                    .zip(&keep)
                    .filter(|&(_, &x)| x)
                    .flat_map(|(r, _)| r)
                    .copied()
                    .collect()
            };
            Sequence {
                q: tokens_first(&q[b * hq * tq * d..][..hq * tq * d], [hq, tq, d]),
                k: compact(&k, d),
                v: compact(&v, dv),
                out: tokens_first(&out[b * hq * tq * dv..][..hq * tq * dv], [hq, tq, dv]),
                lse: lse.as_ref().map(|l| tokens_first(&l[b * hq * tq..][..hq * tq], [hq, tq, 1])),
                q_len: tq as u32,
                kv_len: keep.iter().filter(|&&x| x).count() as u32,
            }
        })
        .collect();
    (sequences, [qs[1], ks[1], qs[3], vs[3]])
}

fn packed(case: &Case<'_>) -> (Vec<Sequence>, [u32; 4]) {
    let ((qs, q), (ks, k), (vs, v)) = (case.f32("q"), case.f32("k"), case.f32("v"));
    let (_, out) = case.f32("out");
    let (cu_q, cu_k) = (case.ints("cu_q"), case.ints("cu_k"));
    let [hq, d, hkv, dv] = [qs[1], qs[2], ks[1], vs[2]].map(|n| n as usize);
    let cut = |data: &[f32], width: usize, cu: &[i64]| {
        data[cu[0] as usize * width..cu[1] as usize * width].to_vec()
    };
    let sequences = cu_q
        .windows(2)
        .zip(cu_k.windows(2))
        .map(|(cu_q, cu_k)| Sequence {
            q: cut(&q, hq * d, cu_q),
            k: cut(&k, hkv * d, cu_k),
            v: cut(&v, hkv * dv, cu_k),
            out: cut(&out, hq * dv, cu_q),
            lse: None,
            q_len: (cu_q[1] - cu_q[0]) as u32,
            kv_len: (cu_k[1] - cu_k[0]) as u32,
        })
        .filter(|s| s.q_len > 0)
        .collect();
    (sequences, [qs[1], ks[1], qs[2], vs[2]])
}

/// A cache whose slots are in reverse order and whose unused places hold NaN.
fn cache(gpu: &Gpu, sequences: &[Sequence], [_, hkv, d, dv]: [u32; 4], f16: bool) -> KvView {
    let slots = sequences.len() as u32;
    let capacity = sequences.iter().map(|s| s.kv_len).max().unwrap_or(0) + 3;
    let fill = |dim: u32, rows: fn(&Sequence) -> &[f32]| -> Vec<f32> {
        let mut data = vec![f32::NAN; (slots * hkv * capacity * dim) as usize];
        for (i, seq) in sequences.iter().enumerate() {
            let slot = slots as usize - 1 - i;
            for (at, row) in rows(seq).chunks_exact(dim as usize).enumerate() {
                let (token, head) = (at / hkv as usize, at % hkv as usize);
                let to = ((slot * hkv as usize + head) * capacity as usize + token) * dim as usize;
                data[to..to + dim as usize].copy_from_slice(row);
            }
        }
        data
    };
    let upload = |data: &[f32]| {
        let mut bytes: Vec<u8> = if f16 {
            data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
        } else {
            bytemuck::cast_slice(data).to_vec()
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        gpu.upload(&bytes).expect("memory")
    };
    let strides = |dim| girih_ops::Strides { slot: hkv * capacity * dim, head: capacity * dim, token: dim };
    KvView {
        k: upload(&fill(d, |s| &s.k)),
        v: upload(&fill(dv, |s| &s.v)),
        f16,
        num_kv_heads: hkv,
        head_dim: d,
        value_dim: dv,
        k_strides: strides(d),
        v_strides: strides(dv),
    }
}

fn batch(gpu: &Gpu, sequences: &[Sequence]) -> Batch {
    let ids = vec![0; sequences.iter().map(|s| s.q_len).max().unwrap_or(0) as usize];
    let slots = sequences.len() as u32;
    let chunks: Vec<Chunk<'_>> = sequences
        .iter()
        .enumerate()
        .map(|(i, s)| Chunk {
            slot: slots - 1 - i as u32,
            start: s.kv_len.saturating_sub(s.q_len),
            token_ids: &ids[..s.q_len as usize],
        })
        .collect();
    let mut batch = Batch::upload(gpu, &chunks).expect("a batch");
    // More rows than keys (left padding) is not something that chunks can say.
    let mut q_base = 0;
    let seqs: Vec<u32> = sequences
        .iter()
        .enumerate()
        .flat_map(|(i, s)| {
            q_base += s.q_len;
            [q_base - s.q_len, s.q_len, s.kv_len, slots - 1 - i as u32]
        })
        .collect();
    batch.seqs = Tensor::from_u32(gpu, &seqs, &[slots, 4]).expect("seqs");
    batch
}

async fn run(gpu: &Gpu, case: &Case<'_>, f16: bool) -> Vec<String> {
    let (sequences, dims) = if case.has("cu_q") { packed(case) } else { padded(case) };
    let [hq, _, d, _] = dims;
    let q: Vec<f32> = sequences.iter().flat_map(|s| s.q.iter().copied()).collect();
    let want: Vec<f32> = sequences.iter().flat_map(|s| s.out.iter().copied()).collect();
    let rows = q.len() as u32 / (hq * d);
    let q = Tensor::from_f32(gpu, &q, &[rows, hq * d]).expect("q");
    let sinks = case.has("sinks").then(|| Tensor::from_f32(gpu, &case.f32("sinks").1, &[hq]).expect("sinks"));
    let opts = Attention {
        num_q_heads: hq,
        scale: case.number("scale").expect("a scale") as f32,
        causal: case.flag("causal"),
        window: case.number("window").map(|w| w as u32),
        softcap: case.number("softcap").map(|c| c as f32),
        sinks: sinks.as_ref(),
    };
    let kv = cache(gpu, &sequences, dims, f16);
    let mut frame = Frame::new(gpu);
    let batch = batch(gpu, &sequences);
    let (out, lse) = attention_with_lse(&mut frame, &q, &kv, &batch, &opts).expect("attention");
    let labels = frame.recording().labels();
    frame.submit().expect("submit");
    let name = format!("{} {labels:?}", case.name);
    let got = out.to_f32(gpu).await.expect("read");
    assert_close(&name, &got, &want, 2e-5, 1e-4);
    let got = lse.to_f32(gpu).await.expect("read");
    let mut row = 0;
    for seq in &sequences {
        if let Some(want) = &seq.lse {
            // Rows that see nothing: -inf there, a finite number here.
            let want: Vec<f32> = want.iter().map(|v| v.max(girih_kernels::attention::EMPTY_LSE)).collect();
            assert_close(&format!("{name} lse"), &got[row..row + want.len()], &want, 1e-4, 1e-5);
        }
        row += (seq.q_len * hq) as usize;
    }
    labels
}

#[on_device("goldens/ops/attention")]
async fn attention_agrees_with_every_golden(gpu: Gpu) {
    let op = goldens::op("attention");
    let mut kernels = std::collections::BTreeSet::new();
    let mut count = 0;
    for case in op.cases() {
        if NOT_COVERED.contains(&case.name.as_str()) || case.has("bias") || case.has("block_table") {
            continue;
        }
        kernels.extend(run(&gpu, &case, false).await);
        count += 1;
        if case.name.starts_with("f16_inputs") {
            kernels.extend(run(&gpu, &case, true).await);
        }
    }
    println!("{count} cases through {kernels:?}");
    goldens::counted("ops/attention: covered", count);
    assert!(kernels.len() >= 2, "{kernels:?}");
}

/// Many splits and a batch whose buffers say more keys than there are: grids come from the batch, keys from `seqs`.
#[on_device]
async fn decode_takes_the_number_of_keys_from_the_device(gpu: Gpu) {
    let (heads, kv_heads, dim, capacity) = (4, 2, 32, 8192);
    let kv =
        KvView::alloc(&gpu, KvSize { slots: 1, num_kv_heads: kv_heads, capacity, head_dim: dim, f16: false })
            .expect("cache");
    let values = seeded((kv_heads * capacity * dim) as usize, 1);
    gpu.write(&kv.k, 0, bytemuck::cast_slice(&values));
    gpu.write(&kv.v, 0, bytemuck::cast_slice(&values));
    let q = seeded((heads * dim) as usize, 2);
    let q = Tensor::from_f32(&gpu, &q, &[1, heads * dim]).expect("q");
    let sinks = Tensor::from_f32(&gpu, &[0.5, -1.0, 2.0, 0.0], &[heads]).expect("sinks");
    let opts = Attention {
        num_q_heads: heads,
        scale: 0.1,
        causal: true,
        window: None,
        softcap: None,
        sinks: Some(&sinks),
    };
    let run = async |max_kv_len: u32| {
        let mut batch =
            Batch::upload(&gpu, &[Chunk { slot: 0, start: 99, token_ids: &[0] }]).expect("a batch");
        batch.max_kv_len = max_kv_len;
        let mut frame = Frame::new(&gpu);
        let (out, lse) = attention_with_lse(&mut frame, &q, &kv, &batch, &opts).expect("attention");
        let dispatches = frame.recording().labels().len();
        frame.submit().expect("submit");
        assert_eq!(out.dtype(), DType::F32);
        let read = async |t: &Tensor| t.to_f32(&gpu).await.expect("read");
        (read(&out).await, read(&lse).await, dispatches)
    };
    let (out, lse, dispatches) = run(100).await;
    assert_eq!(dispatches, 1, "one split needs no merge");
    let (split_out, split_lse, dispatches) = run(capacity).await;
    assert_eq!(dispatches, 2, "splits and a merge");
    assert_close("split", &split_out, &out, 1e-5, 1e-5);
    assert_close("split lse", &split_lse, &lse, 1e-5, 1e-5);
}

#[on_device]
async fn wrong_arguments_are_errors_that_say_so(gpu: Gpu) {
    let kv = KvView::alloc(&gpu, KvSize { slots: 1, num_kv_heads: 2, capacity: 8, head_dim: 32, f16: false })
        .expect("cache");
    let batch = Batch::upload(&gpu, &[Chunk { slot: 0, start: 0, token_ids: &[0, 0] }]).expect("a batch");
    let good =
        Attention { num_q_heads: 4, scale: 0.1, causal: true, window: None, softcap: None, sinks: None };
    let error = |heads: u32, opts: Attention<'_>| {
        let q = Tensor::from_f32(&gpu, &vec![0.0; (2 * heads * 32) as usize], &[2, heads * 32]).expect("q");
        let result = attention_with_lse(&mut Frame::new(&gpu), &q, &kv, &batch, &opts);
        result.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(error(4, good), "");
    let wrong = error(3, Attention { num_q_heads: 3, ..good });
    assert!(wrong.contains("num_q_heads is 3, must be a positive multiple of 2"), "{wrong}");
    assert!(error(2, good).contains("q has shape [2, 64], must be [2, 128]"));
    assert!(error(4, Attention { window: Some(0), ..good }).contains("window is 0, must be at least 1"));
    assert!(error(4, Attention { softcap: Some(0.0), ..good }).contains("softcap is 0, must be positive"));
}

/// Known answers: values `((hash(n + a·0x9E3779B9) & 255) - 128) / 128`, 4 heads over 2, 16 rows of 8 channels.
#[on_device]
async fn known_answers(gpu: Gpu) {
    let (hq, hkv, n, d) = (4_usize, 2_usize, 16_usize, 8_usize);
    let values = |len: usize, a: u32| -> Vec<f32> {
        (0..len as u32)
            .map(|n| {
                let hash = girih_kernels::testing::hash(n.wrapping_add(a.wrapping_mul(0x9e37_79b9)));
                ((hash & 255) as f32 - 128.0) / 128.0
            })
            .collect()
    };
    let q = tokens_first(&values(hq * n * d, 1), [hq, n, d]);
    let q = Tensor::from_f32(&gpu, &q, &[n as u32, (hq * d) as u32]).expect("q");
    let strides = girih_ops::Strides { slot: (hkv * n * d) as u32, head: (n * d) as u32, token: d as u32 };
    let upload = |a| gpu.upload(bytemuck::cast_slice(&values(hkv * n * d, a))).expect("memory");
    let kv = KvView {
        k: upload(2),
        v: upload(3),
        f16: false,
        num_kv_heads: hkv as u32,
        head_dim: d as u32,
        value_dim: d as u32,
        k_strides: strides,
        v_strides: strides,
    };
    let batch = Batch::upload(&gpu, &[Chunk { slot: 0, start: 0, token_ids: &[0; 16] }]).expect("a batch");
    let sinks = Tensor::from_f32(&gpu, &[0.5, -0.5, 1.0, 0.0], &[4]).expect("sinks");
    let dense = Attention {
        num_q_heads: 4,
        scale: 1.0 / 8_f32.sqrt(),
        causal: true,
        window: None,
        softcap: None,
        sinks: None,
    };
    let run = async |opts: Attention<'_>| {
        let mut frame = Frame::new(&gpu);
        let (out, lse) = attention_with_lse(&mut frame, &q, &kv, &batch, &opts).expect("attention");
        frame.submit().expect("submit");
        let read = async |t: &Tensor| t.to_f32(&gpu).await.expect("read");
        let (out, lse) = (read(&out).await, read(&lse).await);
        let sum = out.iter().sum::<f32>();
        let sum_abs = out.iter().map(|v| v.abs()).sum::<f32>();
        // Row 0 of head 0, row 15 of head 3.
        (out[..8].to_vec(), out[(15 * hq + 3) * d..].to_vec(), vec![lse[15 * hq + 3], sum, sum_abs])
    };
    let (first, last, sums) = run(dense).await;
    let want = [0.476_562, 0.007_812, 0.921_875, 0.140_625, 0.085_938, -0.070_312, -0.070_312, -0.140_625];
    assert_close("A first", &first, &want, 2e-6, 0.0);
    let want = [0.080_317, 0.062_949, 0.245_415, 0.143_866, 0.085_88, -0.241_32, -0.168_955, 0.047_661];
    assert_close("A last", &last, &want, 2e-6, 0.0);
    assert_close("A sums", &sums, &[2.8245, 7.542_661, 108.397_95], 6e-5, 1e-6);
    let (first, last, sums) = run(Attention { window: Some(4), sinks: Some(&sinks), ..dense }).await;
    let want = [0.182_284, 0.002_988, 0.352_615, 0.053_789, 0.032_871, -0.026_894, -0.026_894, -0.053_789];
    assert_close("B first", &first, &want, 2e-6, 0.0);
    let want = [0.100_482, -0.242_865, 0.214_79, 0.071_465, -0.233_681, -0.128_596, 0.126_641, -0.129_412];
    assert_close("B last", &last, &want, 2e-6, 0.0);
    assert_close("B sums", &sums, &[1.753_798, 4.245_079, 94.044_51], 6e-5, 1e-6);
}

/// Lightning attention against independent results: prompts whole, and in pieces that the state connects.
#[on_device("goldens/ops/linear_attention_decay")]
async fn linear_attention_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = goldens::op("linear_attention_decay");
    for case in goldens.cases() {
        let (shape, q) = case.f32("q");
        let [b, h, t, d] = [shape[0], shape[1], shape[2], shape[3]].map(|n| n as usize);
        let parts = [q, case.f32("k").1, case.f32("v").1];
        let slopes = Tensor::from_f32(&gpu, &case.f32("slope").1, &[h as u32]).expect("uploads");
        let begun = case.has("kv0");
        for cuts in [vec![0, t], vec![0, 1, t - 1, t]] {
            let initial = if begun { case.f32("kv0").1 } else { vec![f32::NAN; b * h * d * d] };
            let shape = [b, h, d, d].map(|n| n as u32);
            let states = Tensor::from_f32(&gpu, &initial, &shape).expect("uploads");
            let mut got = vec![0.0; b * h * t * d];
            for rows in cuts.windows(2).map(|cut| cut[0]..cut[1]) {
                // Of each sequence [T, H, 3, D].
                let mut qkv = Vec::new();
                for (i, row) in (0..b).flat_map(|i| rows.clone().map(move |row| (i, row))) {
                    for (head, part) in (0..h).flat_map(|head| parts.iter().map(move |part| (head, part))) {
                        qkv.extend_from_slice(&part[((i * h + head) * t + row) * d..][..d]);
                    }
                }
                let ids = vec![0; rows.len()];
                // A sequence that goes on has had a token before.
                let start = (rows.start + usize::from(begun)) as u32;
                let chunks: Vec<Chunk<'_>> =
                    (0..b as u32).map(|slot| Chunk { slot, start, token_ids: &ids }).collect();
                let batch = Batch::upload(&gpu, &chunks).expect("a batch");
                let shape = [(b * rows.len()) as u32, (3 * h * d) as u32];
                let qkv = Tensor::from_f32(&gpu, &qkv, &shape).expect("uploads");
                let mut frame = Frame::new(&gpu);
                let out = linear_attention(&mut frame, &qkv, &slopes, &states, &batch).expect("records");
                frame.submit().expect("runs");
                let out = out.to_f32(&gpu).await.expect("reads");
                for (at, values) in out.chunks_exact(d).enumerate() {
                    let (i, row, head) = (at / h / rows.len(), rows.start + at / h % rows.len(), at % h);
                    got[((i * h + head) * t + row) * d..][..d].copy_from_slice(values);
                }
            }
            assert_close(&case.name, &got, &case.f32("out").1, 2e-5, 1e-5);
            let last = states.to_f32(&gpu).await.expect("reads");
            assert_close(&format!("{} states", case.name), &last, &case.f32("kv_last").1, 2e-5, 1e-5);
        }
    }
}

/// Multi-head latent attention by its definition, in f64: keys and values of every head, none absorbed.
mod latent {
    pub const HEADS: usize = 3;
    /// L, R, Dn, Dv.
    pub const DIMS: [usize; 4] = [12, 4, 6, 5];
    pub const INV_FREQ: [f32; 2] = [1.0, 0.3];
    pub const EPS: f32 = 1e-3;
    pub const SCALE: f32 = 0.4;

    /// What a layer is given of one token: latent and key, parts of the queries.
    pub struct Token<'a> {
        pub latent: &'a [f32],
        pub nope: &'a [f32],
        pub rope: &'a [f32],
    }

    pub struct Weights<'a> {
        pub norm: &'a [f32],
        /// `[H, Dn, L]`
        pub keys: &'a [f32],
        /// `[H, Dv, L]`
        pub values: &'a [f32],
    }

    fn rotated(x: &[f32], position: usize) -> Vec<f64> {
        let pair = |(i, pair): (usize, &[f32])| {
            let (sin, cos) = f64::from(position as f32 * INV_FREQ[i]).sin_cos();
            let [a, b] = [pair[0], pair[1]].map(f64::from);
            [a * cos - b * sin, b * cos + a * sin]
        };
        x.chunks_exact(2).enumerate().flat_map(pair).collect()
    }

    fn times(matrix: &[f32], x: &[f64]) -> Vec<f64> {
        let row = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
        matrix.chunks_exact(x.len()).map(row).collect()
    }

    /// Results `[H Dv]` of each token of a sequence.
    pub fn attention(tokens: &[Token<'_>], w: &Weights<'_>) -> Vec<Vec<f64>> {
        let [l, r, dn, dv] = DIMS;
        let latents: Vec<Vec<f64>> = tokens
            .iter()
            .map(|token| {
                let x = &token.latent[..l];
                let mean_sq = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / l as f64;
                let scale = (mean_sq + f64::from(EPS)).sqrt().recip();
                x.iter().zip(w.norm).map(|(&x, &w)| f64::from(x) * scale * f64::from(w)).collect()
            })
            .collect();
        let keys: Vec<Vec<f64>> = (0..).zip(tokens).map(|(i, t)| rotated(&t.latent[l..], i)).collect();
        let head = |i: usize, h: usize| {
            let mut query: Vec<f64> =
                tokens[i].nope[h * dn..(h + 1) * dn].iter().map(|&v| f64::from(v)).collect();
            query.extend(rotated(&tokens[i].rope[h * r..(h + 1) * r], i));
            let scores: Vec<f64> = (0..=i)
                .map(|j| {
                    let mut key = times(&w.keys[h * dn * l..(h + 1) * dn * l], &latents[j]);
                    key.extend(&keys[j]);
                    f64::from(SCALE) * query.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>()
                })
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let sum: f64 = shares.iter().sum();
            let mut out = vec![0.0; dv];
            for (share, latent) in shares.iter().zip(&latents) {
                let value = times(&w.values[h * dv * l..(h + 1) * dv * l], latent);
                out.iter_mut().zip(value).for_each(|(o, v)| *o += share / sum * v);
            }
            out
        };
        (0..tokens.len()).map(|i| (0..HEADS).flat_map(|h| head(i, h)).collect()).collect()
    }
}

/// The absorbed form over one cache of latents is attention with keys and values of every head: prompts of two sequences, then a
/// token of each.
#[on_device]
async fn absorbed_latents_are_keys_and_values_of_every_head(gpu: Gpu) {
    use latent::{DIMS, EPS, HEADS, INV_FREQ, SCALE, Token, Weights};
    let [l, r, dn, dv] = DIMS;
    // No outliers: they would hide all other keys.
    let plain = |len, seed| seeded(len, seed).iter().map(|v: &f32| v.clamp(-1.0, 1.0)).collect::<Vec<_>>();
    let lengths = [9, 4];
    let tokens: usize = lengths.iter().map(|n| n + 1).sum();
    let latents = plain(tokens * (l + r), 1);
    let (nope, rope) = (plain(tokens * HEADS * dn, 2), plain(tokens * HEADS * r, 3));
    let (norm, keys, values) = (plain(l, 4), plain(HEADS * dn * l, 5), plain(HEADS * dv * l, 6));
    let of = |i: usize| Token {
        latent: &latents[i * (l + r)..][..l + r],
        nope: &nope[i * HEADS * dn..][..HEADS * dn],
        rope: &rope[i * HEADS * r..][..HEADS * r],
    };
    let weights = Weights { norm: &norm, keys: &keys, values: &values };
    let first = [0, lengths[0] + 1];
    let sequence = |s: usize| (first[s]..=first[s] + lengths[s]).map(of).collect::<Vec<_>>();
    let want = [0, 1].map(|s| latent::attention(&sequence(s), &weights));

    let transposed = |h: usize, c: usize| (0..dn).map(move |i| (h * dn + i) * l + c);
    let absorb: Vec<f32> =
        (0..HEADS * l).flat_map(|row| transposed(row / l, row % l)).map(|i| keys[i]).collect();
    let matrix = |data: &[f32], n: usize, k: usize| {
        let whole = Matrix::from_f32(&gpu, data, (HEADS * n) as u32, k as u32, WeightType::F32);
        Matrix { experts: HEADS as u32, ..whole.expect("uploads") }
    };
    let (absorb, expand) = (matrix(&absorb, l, dn), matrix(&values, dv, l));
    let norm = Tensor::from_f32(&gpu, &norm, &[l as u32]).expect("uploads");
    let freqs = RopeFreqs { inv_freq: &INV_FREQ, attention_factor: 1.0 };
    let table = RopeTable::new(&gpu, r as u32, &freqs, None, 16).expect("a table");
    for (f16, atol) in [(false, 2e-5), (true, 4e-3)] {
        let size = LatentSize { slots: 2, capacity: 16, latent_dim: l as u32, rope_dim: r as u32, f16 };
        let cache = KvView::alloc_latent(&gpu, size).expect("a cache");
        assert_eq!(cache.bytes(), 2 * 16 * (l + r) as u64 * if f16 { 2 } else { 4 });
        // Sequence 0 is in slot 1.
        let run = async |rows: [std::ops::Range<usize>; 2], starts: [u32; 2]| {
            let chosen: Vec<usize> = rows.iter().cloned().flatten().collect();
            let ids: Vec<Vec<u32>> = rows.iter().map(|rows| vec![0; rows.len()]).collect();
            let chunk = |s: usize| Chunk { slot: 1 - s as u32, start: starts[s], token_ids: &ids[s] };
            let batch = Batch::upload(&gpu, &[chunk(0), chunk(1)]).expect("a batch");
            let t = chosen.len();
            let upload = |data: &[f32], rows: usize, columns: usize| {
                let of = columns * rows / t;
                let rows_of: Vec<f32> = chosen.iter().flat_map(|&i| &data[i * of..][..of]).copied().collect();
                Tensor::from_f32(&gpu, &rows_of, &[rows as u32, columns as u32]).expect("uploads")
            };
            let [latents, nope, rope] = [(&latents, t, l + r), (&nope, t * HEADS, dn), (&rope, t, HEADS * r)]
                .map(|(data, rows, columns)| upload(data, rows, columns));
            let routes: Vec<u32> = (0..t).flat_map(|_| (0..HEADS as u32).flat_map(|h| [h, 0])).collect();
            let routes = Tensor::from_u32(&gpu, &routes, &[t as u32, HEADS as u32, 2]).expect("uploads");
            let mut frame = Frame::new(&gpu);
            let absorbed = linear_by_expert(&mut frame, &nope, &routes, &absorb).expect("records");
            let opts = LatentAppend {
                num_q_heads: HEADS as u32,
                norm: &norm,
                eps: EPS,
                rope: (&table, RopeStyle::Interleaved),
            };
            let parts = [&latents, &absorbed, &rope];
            let q = latent_append(&mut frame, parts, &cache, &batch, &opts).expect("records");
            let opts = Attention {
                num_q_heads: HEADS as u32,
                scale: SCALE,
                causal: true,
                window: None,
                softcap: None,
                sinks: None,
            };
            let (sums, _) = attention_with_lse(&mut frame, &q, &cache, &batch, &opts).expect("records");
            let sums = sums.reshape(&[(t * HEADS) as u32, l as u32]).expect("sums of heads");
            let out = linear_by_expert(&mut frame, &sums, &routes, &expand).expect("records");
            frame.submit().expect("runs");
            out.to_f32(&gpu).await.expect("reads")
        };
        let wanted = |rows: [std::ops::Range<usize>; 2]| -> Vec<f32> {
            let of = |(s, rows): (usize, std::ops::Range<usize>)| want[s][rows].concat();
            rows.into_iter().enumerate().flat_map(of).map(|v| v as f32).collect()
        };
        let got = run([0..9, first[1]..first[1] + 4], [0, 0]).await;
        assert_close(&format!("prompts, f16 {f16}"), &got, &wanted([0..9, 0..4]), atol, 1e-5);
        let got = run([9..10, first[1] + 4..first[1] + 5], [9, 4]).await;
        assert_close(&format!("steps, f16 {f16}"), &got, &wanted([9..10, 4..5]), atol, 1e-5);
    }
}

#[on_device]
async fn latents_that_do_not_fit_are_refused(gpu: Gpu) {
    let batch = Batch::upload(&gpu, &[Chunk { slot: 0, start: 0, token_ids: &[0; 3] }]).expect("a batch");
    let zeros = |shape: &[u32]| {
        Tensor::from_f32(&gpu, &vec![0.0; shape.iter().product::<u32>() as usize], shape).expect("uploads")
    };
    let freqs = RopeFreqs { inv_freq: &[1.0, 0.5], attention_factor: 1.0 };
    let table = |positions| RopeTable::new(&gpu, 4, &freqs, None, positions).expect("a table");
    let (long, short) = (table(8), table(2));
    let size = LatentSize { slots: 1, capacity: 8, latent_dim: 6, rope_dim: 4, f16: false };
    let (latents, absorbed, rope, norm) = (zeros(&[3, 10]), zeros(&[6, 6]), zeros(&[3, 8]), zeros(&[6]));
    let record = |size: LatentSize, parts: [&Tensor; 3], norm: &Tensor, table: &RopeTable| {
        let cache = KvView::alloc_latent(&gpu, size).expect("a cache");
        let opts = LatentAppend { num_q_heads: 2, norm, eps: 1e-6, rope: (table, RopeStyle::Half) };
        latent_append(&mut Frame::new(&gpu), parts, &cache, &batch, &opts).map(|_| ())
    };
    let parts = [&latents, &absorbed, &rope];
    record(size, parts, &norm, &long).expect("fits");
    let said = |result: Result<(), OpError>| result.expect_err("does not fit").to_string();
    for (what, result) in [
        ("positions of the table", record(size, parts, &norm, &short)),
        ("the cache can hold", record(LatentSize { capacity: 2, ..size }, parts, &norm, &long)),
        ("channels of a key", record(LatentSize { rope_dim: 2, ..size }, parts, &norm, &long)),
        ("weight of the norm", record(size, parts, &zeros(&[5]), &long)),
        ("latents", record(size, [&absorbed, &absorbed, &rope], &norm, &long)),
        ("absorbed", record(size, [&latents, &latents, &rope], &norm, &long)),
        ("q_rope", record(size, [&latents, &absorbed, &latents], &norm, &long)),
    ] {
        let error = said(result);
        assert!(error.contains(what), "{what}: {error}");
    }
    let odd = LatentSize { latent_dim: 5, f16: true, ..size };
    let (latents, absorbed) = (zeros(&[3, 9]), zeros(&[6, 5]));
    let error = said(record(odd, [&latents, &absorbed, &rope], &zeros(&[5]), &long));
    assert!(error.contains("even in an f16 cache"), "{error}");
    let most = LatentSize { latent_dim: u32::MAX, ..size };
    let error = KvView::alloc_latent(&gpu, most).map(|_| ()).expect_err("no such latents").to_string();
    assert!(error.contains("below 2^32"), "{error}");
}
