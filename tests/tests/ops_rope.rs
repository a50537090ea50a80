//! Rotary position embedding against independent results; the fused append against its parts.

use girih_kernels::Gpu;
use girih_kernels::testing::seeded;
use girih_ops::{
    Batch, Chunk, Frame, KvSize, KvView, QkNorm, RopeAppend, RopeFreqs, RopeStyle, RopeTable, Tensor,
};
use girih_tests::goldens::{assert_close, op};
use girih_tests::on_device;

async fn values(gpu: &Gpu, x: &Tensor) -> Vec<f32> {
    x.to_f32(gpu).await.expect("reads back")
}

#[on_device("goldens/ops/rope")]
async fn rope_agrees_with_the_goldens_by_table_and_computed(gpu: Gpu) {
    let goldens = op("rope");
    for case in goldens.cases() {
        let style = match case.json["style"].as_str() {
            Some("half") => RopeStyle::Half,
            Some("interleaved") => RopeStyle::Interleaved,
            Some("interleaved_to_half") => RopeStyle::InterleavedToHalf,
            other => panic!("{}: style {other:?}", case.name),
        };
        let inv_freq = case.f32("inv_freq").1;
        let attention_factor = case.number("attention_factor").expect("a factor") as f32;
        let freqs = RopeFreqs { inv_freq: &inv_freq, attention_factor };
        let rotary_dim = 2 * inv_freq.len() as u32;
        let (shape, x) = case.f32("x");
        let x = Tensor::from_f32(&gpu, &x, &shape).expect("uploads");
        let positions: Vec<u32> = case.ints("positions").iter().map(|&v| v as u32).collect();
        let rows = positions.iter().max().expect("positions") + 1;
        let positions = Tensor::from_u32(&gpu, &positions, &[shape[0]]).expect("uploads");
        let want = case.f32("y").1;
        let tables = [
            ("table", RopeTable::new(&gpu, rotary_dim, &freqs, None, rows)),
            ("computed", RopeTable::computed(&gpu, rotary_dim, &freqs, None)),
        ];
        for (kind, table) in tables {
            let mut frame = Frame::new(&gpu);
            let table = table.expect("a table");
            let y = girih_ops::rope(&mut frame, &x, &positions, &table, style).expect("records");
            frame.submit().expect("runs");
            assert_close(&format!("{} {kind}", case.name), &values(&gpu, &y).await, &want, 2e-6, 2e-6);
        }
    }
}

struct Sizes {
    num_q: u32,
    num_kv: u32,
    head_dim: u32,
    rotary_dim: u32,
    f16: bool,
}

/// Rows of the projections, split into q, k and v by hand.
fn split(qkv: &[f32], s: &Sizes) -> [Vec<f32>; 3] {
    let d = s.head_dim as usize;
    let (q, kv) = (s.num_q as usize * d, s.num_kv as usize * d);
    let rows = || qkv.chunks_exact(q + 2 * kv);
    [
        rows().flat_map(|r| r[..q].to_vec()).collect(),
        rows().flat_map(|r| r[q..q + kv].to_vec()).collect(),
        rows().flat_map(|r| r[q + kv..].to_vec()).collect(),
    ]
}

async fn read_cache(gpu: &Gpu, buffer: &girih_ops::Buffer, f16: bool) -> Vec<f32> {
    let bytes = gpu.read(buffer).await.expect("reads back");
    if f16 {
        bytes.chunks_exact(2).map(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f32()).collect()
    } else {
        bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
    }
}

#[on_device]
async fn the_fused_append_agrees_with_norm_rope_and_copy(gpu: Gpu) {
    let sizes = [
        Sizes { num_q: 4, num_kv: 2, head_dim: 64, rotary_dim: 64, f16: true },
        Sizes { num_q: 6, num_kv: 2, head_dim: 80, rotary_dim: 32, f16: false },
        Sizes { num_q: 3, num_kv: 3, head_dim: 13, rotary_dim: 6, f16: false },
        Sizes { num_q: 3, num_kv: 1, head_dim: 18, rotary_dim: 18, f16: true },
    ];
    let chunks = [
        Chunk { slot: 2, start: 0, token_ids: &[1, 2, 3] },
        Chunk { slot: 0, start: 7, token_ids: &[4] },
        Chunk { slot: 1, start: 5, token_ids: &[5, 6] },
    ];
    let capacity = 10;
    for (i, s) in sizes.iter().enumerate() {
        for full in [false, true] {
            let what = format!("sizes {i}, full {full}");
            let batch = Batch::upload(&gpu, &chunks).expect("uploads");
            let (t, d) = (batch.num_tokens(), s.head_dim);
            let width = (s.num_q + 2 * s.num_kv) * d;
            let data = seeded((t * width) as usize, 3);
            let qkv = Tensor::from_f32(&gpu, &data, &[t, width]).expect("uploads");
            let kv = KvView::alloc(
                &gpu,
                KvSize { slots: 3, num_kv_heads: s.num_kv, capacity, head_dim: d, f16: s.f16 },
            )
            .expect("allocates");
            let inv_freq: Vec<f32> = (0..s.rotary_dim / 2).map(|i| 0.7f32.powi(i as i32)).collect();
            let freqs = RopeFreqs { inv_freq: &inv_freq, attention_factor: 1.1 };
            let table = RopeTable::new(&gpu, s.rotary_dim, &freqs, None, capacity).expect("a table");
            let weight = |heads: u32, seed| {
                let len = if full { heads * d } else { d };
                Tensor::from_f32(&gpu, &seeded(len as usize, seed), &[len]).expect("uploads")
            };
            let (wq, wk) = (weight(s.num_q, 11), weight(s.num_kv, 12));
            let norm = if full {
                QkNorm::Full { q: &wq, k: &wk, eps: 1e-6 }
            } else {
                QkNorm::PerHead { q: &wq, k: &wk, eps: 1e-6 }
            };
            let opts =
                RopeAppend { num_q_heads: s.num_q, norm, clip: None, rope: Some((&table, RopeStyle::Half)) };
            let mut frame = Frame::new(&gpu);
            let got_q = girih_ops::rope_append(&mut frame, &qkv, &kv, &batch, &opts).expect("records");
            // The same by parts.
            let [q, k, v] = split(&data, s);
            let mut part = |x: &[f32], heads: u32, w: &Tensor| {
                let shape = if full { [t, 1, heads * d] } else { [t, heads, d] };
                let x = Tensor::from_f32(&gpu, x, &shape).expect("uploads");
                let x = girih_ops::rms_norm(&mut frame, &x, w, 1e-6).expect("records");
                let x = x.reshape(&[t, heads, d]).expect("same size");
                girih_ops::rope(&mut frame, &x, &batch.positions, &table, RopeStyle::Half).expect("records")
            };
            let (want_q, want_k) = (part(&q, s.num_q, &wq), part(&k, s.num_kv, &wk));
            frame.submit().expect("runs");
            assert_close(&what, &values(&gpu, &got_q).await, &values(&gpu, &want_q).await, 1e-5, 1e-5);
            let (abs, rel) = if s.f16 { (1e-4, 1.1e-3) } else { (1e-5, 1e-5) };
            for (buffer, rows) in [(&kv.k, values(&gpu, &want_k).await), (&kv.v, v)] {
                let mut want = vec![0.0f32; (3 * s.num_kv * capacity * d) as usize];
                let mut token = 0;
                for chunk in &chunks {
                    for i in 0..chunk.token_ids.len() as u32 {
                        for head in 0..s.num_kv {
                            let at =
                                (((chunk.slot * s.num_kv + head) * capacity + chunk.start + i) * d) as usize;
                            let from = ((token * s.num_kv + head) * d) as usize;
                            want[at..at + d as usize].copy_from_slice(&rows[from..from + d as usize]);
                        }
                        token += 1;
                    }
                }
                let got = read_cache(&gpu, buffer, s.f16).await;
                assert_close(&what, &got[..want.len()], &want, abs, rel);
            }
        }
    }
}

#[on_device]
async fn long_sequences_take_the_long_frequencies(gpu: Gpu) {
    let (short, long) = ([1.0f32, 0.5], [0.25f32, 0.125]);
    let freqs = RopeFreqs { inv_freq: &short, attention_factor: 1.0 };
    let far = RopeFreqs { inv_freq: &long, attention_factor: 1.5 };
    let data = seeded(2 * 12, 1);
    let chunks = [Chunk { slot: 0, start: 3, token_ids: &[1] }, Chunk { slot: 1, start: 4, token_ids: &[1] }];
    for computed in [false, true] {
        let batch = Batch::upload(&gpu, &chunks).expect("uploads");
        let table = if computed {
            RopeTable::computed(&gpu, 4, &freqs, Some((&far, 4)))
        } else {
            RopeTable::new(&gpu, 4, &freqs, Some((&far, 4)), 8)
        };
        let table = table.expect("a table");
        let kv =
            KvView::alloc(&gpu, KvSize { slots: 2, num_kv_heads: 1, capacity: 8, head_dim: 4, f16: false })
                .expect("allocates");
        let qkv = Tensor::from_f32(&gpu, &data, &[2, 12]).expect("uploads");
        let rope = Some((&table, RopeStyle::Half));
        let opts = RopeAppend { num_q_heads: 1, norm: QkNorm::None, clip: None, rope };
        let mut frame = Frame::new(&gpu);
        let q = girih_ops::rope_append(&mut frame, &qkv, &kv, &batch, &opts).expect("records");
        let [x, _, _] = split(&data, &Sizes { num_q: 1, num_kv: 1, head_dim: 4, rotary_dim: 4, f16: false });
        let x = Tensor::from_f32(&gpu, &x, &[2, 1, 4]).expect("uploads");
        let long = table.long().expect("long frequencies");
        let a = girih_ops::rope(&mut frame, &x, &batch.positions, &table, RopeStyle::Half).expect("records");
        let b = girih_ops::rope(&mut frame, &x, &batch.positions, &long, RopeStyle::Half).expect("records");
        frame.submit().expect("runs");
        let want = [&values(&gpu, &a).await[..4], &values(&gpu, &b).await[4..]].concat();
        assert_close(&format!("computed {computed}"), &values(&gpu, &q).await, &want, 1e-6, 1e-6);
    }
}

#[on_device]
async fn what_does_not_fit_is_a_typed_error(gpu: Gpu) {
    let freqs = RopeFreqs { inv_freq: &[1.0, 0.5], attention_factor: 1.0 };
    assert!(RopeTable::new(&gpu, 6, &freqs, None, 8).is_err(), "3 frequencies are wanted");
    assert!(RopeTable::new(&gpu, 5, &freqs, None, 8).is_err(), "odd");
    let error = RopeTable::new(&gpu, 4, &freqs, None, u32::MAX).expect_err("too large").to_string();
    assert!(error.contains("computed angles need no table"), "{error}");
    let table = RopeTable::new(&gpu, 4, &freqs, None, 3).expect("a table");
    let batch = Batch::upload(&gpu, &[Chunk { slot: 0, start: 3, token_ids: &[1] }]).expect("uploads");
    let rope = Some((&table, RopeStyle::Half));
    let opts = RopeAppend { num_q_heads: 1, norm: QkNorm::None, clip: None, rope };
    let qkv = Tensor::from_f32(&gpu, &[0.0; 12], &[1, 12]).expect("uploads");
    let mut frame = Frame::new(&gpu);
    let kv = KvView::alloc(&gpu, KvSize { slots: 1, num_kv_heads: 1, capacity: 8, head_dim: 4, f16: false })
        .expect("allocates");
    let error = girih_ops::rope_append(&mut frame, &qkv, &kv, &batch, &opts).expect_err("beyond the table");
    assert!(error.to_string().contains("max_kv_len of the batch is 4, must be at most 3"), "{error}");
    let small =
        KvView::alloc(&gpu, KvSize { slots: 1, num_kv_heads: 1, capacity: 2, head_dim: 4, f16: false })
            .expect("allocates");
    let opts = RopeAppend { rope: None, ..opts };
    assert!(girih_ops::rope_append(&mut frame, &qkv, &small, &batch, &opts).is_err(), "beyond the cache");
    let odd = KvView::alloc(&gpu, KvSize { slots: 1, num_kv_heads: 1, capacity: 8, head_dim: 3, f16: true })
        .expect("allocates");
    let qkv = Tensor::from_f32(&gpu, &[0.0; 9], &[1, 9]).expect("uploads");
    let error =
        girih_ops::rope_append(&mut frame, &qkv, &odd, &batch, &opts).expect_err("odd f16").to_string();
    assert!(error.contains("head_dim is 3, must be even"), "{error}");
}
