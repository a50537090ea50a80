//! Experts in every form that checkpoints have, on checkpoints in memory.

use girih_ops::WeightFormat;
use girih_ops::kernels::quant::{Format, unpack_row};

use super::tests::{source, weights};
use super::upload::chunks;
use super::*;
use crate::checkpoint::table::StoredType::{self, BF16, F16, F32, U8};
use crate::testing::block_on;

const E: u32 = 3;
const I: u32 = 2;
const K: u32 = 32;

/// Gate (0) or up (1), expert, row, column.
fn value(which: u32, e: u32, row: u32, column: u32) -> f32 {
    (100 * which + 30 * e + 10 * row) as f32 + (column % 8) as f32
}

/// Rows `[E, 2I, K]` as kernels want them.
fn want() -> Vec<f32> {
    let mut out = Vec::new();
    for e in 0..E {
        for row in 0..2 * I {
            out.extend((0..K).map(|c| value(row % 2, e, row / 2, c)));
        }
    }
    out
}

/// Projection of one expert `[I, K]`.
fn projection(which: u32, e: u32) -> Vec<f32> {
    (0..I * K).map(|i| value(which, e, i / K, i % K)).collect()
}

/// `[E, N, K]` as `[E, K, N]`.
fn transposed(values: &[f32], n: usize) -> Vec<f32> {
    let k = K as usize;
    let of_expert = |m: &[f32]| (0..n * k).map(|i| m[i % n * k + i / n]).collect::<Vec<_>>();
    values.chunks(n * k).flat_map(of_expert).collect()
}

fn checkpoint(dtype: StoredType, policy: WeightPolicy) -> Weights {
    let [gate, up] = [0, 1].map(|which| (0..E).flat_map(|e| projection(which, e)).collect::<Vec<_>>());
    let halves: Vec<f32> = (0..E).flat_map(|e| [projection(0, e), projection(1, e)].concat()).collect();
    let rows = want();
    let turned = transposed(&rows, 2 * I as usize);
    let bias: Vec<f32> = (0..E * 2 * I).map(|i| i as f32).collect();
    let mut tensors: Vec<(String, StoredType, Vec<u32>, Vec<f32>)> = Vec::new();
    for e in 0..E {
        for (which, name) in (0..).zip(["gate_proj", "up_proj"]) {
            tensors.push((format!("m.experts.{e}.{name}.weight"), dtype, vec![I, K], projection(which, e)));
            let bias = (0..I).map(|row| value(which, e, row, 0)).collect();
            tensors.push((format!("m.experts.{e}.{name}.bias"), dtype, vec![I], bias));
        }
    }
    for (name, shape, values) in [
        ("gate", vec![E, I, K], gate),
        ("up", vec![E, I, K], up),
        ("halves", vec![E, 2 * I, K], halves),
        ("rows", vec![E, 2 * I, K], rows),
        ("turned", vec![E, K, 2 * I], turned),
        ("bias", vec![E, 2 * I], bias),
        ("router.weight", vec![E, K], vec![1.0; (E * K) as usize]),
    ] {
        tensors.push((format!("m.{name}"), dtype, shape, values));
    }
    let list: Vec<_> =
        tensors.iter().map(|(name, dtype, shape, v)| (name.as_str(), *dtype, &shape[..], &v[..])).collect();
    weights(&list, policy).scope("m")
}

const FORMS: [ExpertRows<'_>; 5] = [
    ExpertRows::Separate { scope: "experts", gate_up: ["gate_proj", "up_proj"] },
    ExpertRows::Stacked("rows"),
    ExpertRows::StackedInterleaveHalves("halves"),
    ExpertRows::StackedPair("gate", "up"),
    ExpertRows::StackedTransposed("turned"),
];

#[test]
fn every_form_gives_the_same_rows() {
    for dtype in [F32, F16, BF16, StoredType::F64] {
        let w = checkpoint(dtype, WeightPolicy::default());
        for rows in FORMS {
            let got = block_on(w.experts_f32(rows, [E, 2 * I, K])).expect("loads");
            assert!(got == want(), "{dtype:?} {rows:?}");
        }
        let one = ExpertRows::SeparateOne { scope: "experts", name: "up_proj" };
        let up: Vec<f32> = (0..E).flat_map(|e| projection(1, e)).collect();
        assert_eq!(block_on(w.experts_f32(one, [E, I, K])).expect("loads"), up);
    }
    let w = checkpoint(F32, WeightPolicy::default());
    for rows in FORMS {
        block_on(w.experts_f32(rows, [E, 2 * I, K])).expect("loads");
    }
    assert!(w.report().unused.iter().all(|name| name.ends_with("bias") || name.ends_with("router.weight")));
}

/// One expert at a time, and which tensors all of them are in.
#[test]
fn experts_one_by_one() {
    let w = checkpoint(F16, WeightPolicy::default());
    let shape = [E, 2 * I, K];
    for (rows, names) in
        FORMS.into_iter().zip([&[][..], &["rows"], &["halves"], &["gate", "up"], &["turned"]])
    {
        let each: Vec<f32> =
            (0..E).flat_map(|e| block_on(w.expert_f32(rows, shape, e)).expect("loads")).collect();
        assert!(each == want(), "{rows:?}");
        let tensors = block_on(w.expert_tensors(rows, shape)).expect("there are");
        let found: Vec<&str> = tensors.iter().map(|info| info.name.trim_start_matches("m.")).collect();
        if names.is_empty() {
            assert_eq!(found.len() as u32, 2 * E, "{found:?}");
        } else {
            assert_eq!(found, names);
        }
        let error = block_on(w.expert_f32(rows, shape, E)).expect_err("no such expert").to_string();
        assert!(error.contains("one of 3"), "{error}");
    }
}

/// Every way of splitting the rows of all experts into chunks gives the same bytes, packed ones too.
#[test]
fn chunks_join_seamlessly() {
    let w = checkpoint(F16, WeightPolicy::default());
    let n = E * 2 * I;
    let format = Format::Q8_0;
    let mut packed = Vec::new();
    for rows in FORMS {
        let segments = block_on(w.expert_segments(rows, [E, 2 * I], Some(K), 0..E)).expect("fits");
        let whole = block_on(w.rows(&segments, &(0..n), K, WeightFormat::F16)).expect("loads");
        let codes = block_on(w.packed_rows(&segments, &(0..n), K, format)).expect("loads");
        for size in 1..=n {
            let (mut split, mut words) = (Vec::new(), (Vec::new(), Vec::new()));
            for range in chunks(n, K, u64::from(size * 8 * K)) {
                split.extend(block_on(w.rows(&segments, &range, K, WeightFormat::F16)).expect("loads"));
                let (c, s) = block_on(w.packed_rows(&segments, &range, K, format)).expect("loads");
                words.0.extend(c);
                words.1.extend(s);
            }
            assert!(split == whole && words == codes, "{rows:?} in chunks of {size}");
        }
        packed.push(codes);
    }
    assert!(packed.windows(2).all(|pair| pair[0] == pair[1]));
    let (codes, scales) = &packed[0];
    let (c, s) = (format.code_words(K) as usize, format.scale_words(K) as usize);
    for (row, want) in want().chunks(K as usize).enumerate() {
        let row = unpack_row(format, K, &codes[row * c..][..c], &scales[row * s..][..s]).values(format);
        let step = want.iter().copied().fold(0.0, f32::max) / 127.0;
        assert!(row.iter().zip(want).all(|(&a, &b)| (a as f32 - b).abs() <= 0.6 * step));
    }
}

/// An expert that is read by itself has the rows that it has among all of them.
#[test]
fn experts_are_read_one_by_one() {
    let w = checkpoint(F16, WeightPolicy::default());
    let n = 2 * I;
    for rows in FORMS {
        let all = block_on(w.expert_segments(rows, [E, n], Some(K), 0..E)).expect("fits");
        for expert in 0..E {
            let one = block_on(w.expert_segments(rows, [E, n], Some(K), expert..expert + 1)).expect("fits");
            let range = expert * n..(expert + 1) * n;
            let read =
                |segments: &[_]| block_on(w.rows(segments, &range, K, WeightFormat::F16)).expect("loads");
            assert!(read(&one) == read(&all), "{rows:?}, expert {expert}");
            let pack =
                |segments: &[_]| block_on(w.packed_rows(segments, &range, K, Format::Q8_0)).expect("loads");
            assert!(pack(&one) == pack(&all), "{rows:?}, expert {expert}, packed");
        }
    }
}

#[test]
fn formats_of_experts() {
    let layout = |w: &Weights, rows| {
        let segments = block_on(w.expert_segments(rows, [E, 2 * I], Some(K), 0..E)).expect("fits");
        w.layout(&segments, [E, E * 2 * I], w.policy()).expect("floats").parts
    };
    for (force, want) in [
        (None, WeightFormat::Bf16),
        (Some(WeightFormat::F16), WeightFormat::F16),
        (Some(Format::Q8_0.into()), Format::Q8_0.into()),
    ] {
        let w = checkpoint(BF16, WeightPolicy { force, activations: None });
        for rows in FORMS {
            assert_eq!(layout(&w, rows), [(E * 2 * I, want)], "{rows:?}");
        }
    }
}

/// Experts may differ in format; within one, rows are decoded where one format cannot hold them.
#[test]
fn formats_that_differ() {
    let (codes, scales) = ([33.0; 32], [127.0; 2]);
    let values = [1.0; 64];
    let list = [
        ("m.0.a.weight", BF16, &[1, 64][..], &values[..]),
        ("m.0.b.weight", BF16, &[1, 64], &values),
        ("m.1.a.weight_blocks", U8, &[1, 2, 16], &codes),
        ("m.1.a.weight_scales", U8, &[1, 2], &scales),
        ("m.1.b.weight_blocks", U8, &[1, 2, 16], &codes),
        ("m.1.b.weight_scales", U8, &[1, 2], &scales),
    ];
    let w = quantised(&list);
    let parts = |pair: [&str; 2], e| {
        let rows = ExpertRows::Separate { scope: "m", gate_up: pair };
        let segments = block_on(w.expert_segments(rows, [e, 2], Some(64), 0..e)).expect("fits");
        let layout = w.layout(&segments, [e, 2 * e], w.policy()).expect("floats");
        let rows = block_on(w.experts_f32(rows, [e, 2, 64])).expect("loads");
        (layout.parts, rows)
    };
    let (found, rows) = parts(["a", "b"], 2);
    assert_eq!(found, [(2, WeightFormat::Bf16), (2, Format::MXFP4.into())]);
    let decoded: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { 0.5 } else { 1.0 }).collect();
    assert_eq!(rows, [&values[..], &values, &decoded, &decoded].concat());
    assert!(w.report().notes.is_empty());
    let w = quantised(&[
        list[0],
        ("m.0.b.weight_blocks", U8, &[1, 2, 16], &codes),
        ("m.0.b.weight_scales", U8, &[1, 2], &scales),
    ]);
    let rows = ExpertRows::Separate { scope: "m", gate_up: ["a", "b"] };
    let segments = block_on(w.expert_segments(rows, [1, 2], Some(64), 0..1)).expect("fits");
    let layout = w.layout(&segments, [1, 2], w.policy()).expect("floats");
    assert_eq!(layout.parts, [(2, WeightFormat::F32)]);
    assert_eq!(w.report().notes.len(), 1);
}

fn quantised(tensors: &[(&str, StoredType, &[u32], &[f32])]) -> Weights {
    let source = source(tensors);
    let table = block_on(TensorTable::open(&*source)).expect("opens");
    let config = serde_json::json!({"quantization_config": {"quant_method": "mxfp4"}});
    let config = config.as_object().expect("an object");
    let quantization = block_on(Quantization::open(&*source, config, &table)).expect("reads");
    Weights::with_quantization(source, table, quantization, WeightPolicy::default())
}

/// Blocks of all experts in one tensor, as gpt-oss has them.
#[test]
fn stacked_blocks() {
    let (e, n, g) = (2, 3, 2);
    let codes: Vec<f32> = (0..e * n * g * 16).map(|i| (i * 7 % 256) as f32).collect();
    let scales: Vec<f32> = (0..e * n * g).map(|i| (125 + i % 5) as f32).collect();
    let w = quantised(&[
        ("m.experts.gate_up_proj_blocks", U8, &[e, n, g, 16], &codes),
        ("m.experts.gate_up_proj_scales", U8, &[e, n, g], &scales),
    ]);
    let m = w.scope("m");
    assert!(m.has("experts.gate_up_proj_blocks") && !m.has("experts.gate_up_proj"));
    let rows = ExpertRows::Stacked("experts.gate_up_proj");
    let got = block_on(m.experts_f32(rows, [e, n, 32 * g])).expect("loads");
    let table = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let want = (0..(e * n * g * 32) as usize).map(|i| {
        let code = codes[i / 2] as usize >> (4 * (i % 2)) & 15;
        let sign = if code > 7 { -1.0 } else { 1.0 };
        sign * table[code % 8] * (scales[i / 32] - 127.0).exp2()
    });
    assert!(got.into_iter().eq(want));
    assert!(w.report().unused.is_empty());
    for shape in [[n, e, 32 * g], [e + 1, n, 32 * g], [e, n, 32 * g + 32], [1, e * n, 32 * g]] {
        let error = block_on(m.experts_f32(rows, shape)).expect_err("does not fit");
        assert!(matches!(error, LoadError::Tensors { .. }), "{shape:?}: {error}");
    }
}

#[test]
fn biases() {
    let w = checkpoint(BF16, WeightPolicy::default());
    let get = |rows| block_on(w.experts_bias_f32(rows, [E, 2 * I])).expect("loads");
    let stacked: Vec<f32> = (0..E * 2 * I).map(|i| i as f32).collect();
    assert_eq!(get(ExpertRows::Stacked("bias")), stacked);
    let halves: Vec<f32> = stacked.chunks(4).flat_map(|b| [b[0], b[2], b[1], b[3]]).collect();
    assert_eq!(get(ExpertRows::StackedInterleaveHalves("bias")), halves);
    let first: Vec<f32> = want().into_iter().step_by(K as usize).collect();
    assert_eq!(get(FORMS[0]), first);
    let pair = ExpertRows::StackedPair("bias", "bias");
    let twice: Vec<f32> = stacked.iter().flat_map(|&v| [v, v]).collect();
    assert_eq!(block_on(w.experts_bias_f32(pair, [E, 4 * I])).expect("loads"), twice);
}

#[test]
fn what_does_not_fit_is_named() {
    let w = checkpoint(F32, WeightPolicy::default());
    let shapes = [[E, 2 * I + 2, K], [E, 2 * I, K + 1], [E + 1, 2 * I, K], [E - 1, 2 * I, K], [2 * E, I, K]];
    for rows in FORMS {
        for shape in shapes {
            // Separate experts above the number wanted are merely not used.
            if matches!(rows, ExpertRows::Separate { .. }) && shape[0] < E {
                continue;
            }
            let error = block_on(w.experts_f32(rows, shape)).expect_err("does not fit");
            let LoadError::Tensors { missing, mis_shaped, .. } = &error else { panic!("{error}") };
            assert_eq!(missing.len() + mis_shaped.len(), 1, "{rows:?} {shape:?}: {error}");
        }
        for shape in [[0, 2, K], [E, 0, K], [E, 2 * I, 0], [1 << 31, 2, K], [u32::MAX; 3]] {
            let error = block_on(w.experts_f32(rows, shape)).expect_err("no such size");
            assert!(matches!(error, LoadError::Op(_)), "{error}");
        }
    }
    let odd = block_on(w.experts_f32(ExpertRows::StackedPair("gate", "up"), [E, 3, K])).expect_err("odd");
    assert!(matches!(odd, LoadError::Tensors { .. }), "{odd}");
    let none = block_on(w.experts_f32(ExpertRows::Stacked("nope"), [E, 2, K])).expect_err("missing");
    assert!(matches!(&none, LoadError::Tensors { missing, .. } if missing == &["m.nope"]), "{none}");
    let bytes = weights(&[("b", U8, &[1, 2, 2], &[0.0; 4])], WeightPolicy::default());
    for rows in [ExpertRows::Stacked("b"), ExpertRows::StackedTransposed("b")] {
        let error = block_on(bytes.experts_f32(rows, [1, 2, 2])).expect_err("integers");
        assert!(matches!(error, LoadError::StoredType { got: "U8", .. }), "{error}");
    }
}

/// The index is that of the checkpoint's tensor.
#[test]
fn values_that_are_no_numbers() {
    let mut values = [0.0; 12];
    values[9] = f32::NAN;
    let w = weights(&[("t", F32, &[2, 2, 3], &values)], WeightPolicy::default());
    let error = block_on(w.experts_f32(ExpertRows::StackedTransposed("t"), [2, 3, 2])).expect_err("NaN");
    assert!(matches!(error, LoadError::NotFinite { index: 9, .. }), "{error}");
}
