//! Quantised checkpoints: every layout gives the values that its golden or its definition says, exactly; matrices
//! put together from quantised modules multiply as the dense ones; what cannot be read is named.

use std::sync::Arc;

use girih_kernels::quant::{Activation, Format, Row, Scale, Zero, pack_row, quantize_row};
use girih_model::format::safetensors::TensorTable;
use girih_model::quantized::Quantization;
use girih_model::weights::{Rows, WeightPolicy, Weights};
use girih_model::{Config, Input, LoadError, LoadOptions, MemorySource, Model, Session, SessionOptions};
use girih_tests::goldens::{self, Tensors, assert_close};
use girih_tests::gpu;
use pollster::block_on;
use serde_json::{Value, json};

/// A tensor of a checkpoint: name, type, shape, bytes.
type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

fn file(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

fn config(quantization: &Value) -> Value {
    json!({ "model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 1, "quantization_config": quantization })
}

fn try_open(quantization: &Value, tensors: &[Stored], policy: WeightPolicy) -> Result<Weights, LoadError> {
    let source = MemorySource::new().with("model.safetensors", file(tensors));
    let config = Config::parse(config(quantization).to_string().as_bytes())?;
    let table = block_on(TensorTable::open(&source))?;
    let quantization = Quantization::of(&config, &table)?;
    Ok(Weights::with_quantization(Arc::new(source), table, quantization, policy))
}

fn open(quantization: &Value, tensors: &[Stored]) -> Weights {
    try_open(quantization, tensors, WeightPolicy::default()).expect("opens")
}

fn i32s(values: impl IntoIterator<Item = i64>) -> Vec<u8> {
    values.into_iter().flat_map(|v| (v as u32).to_le_bytes()).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
}

fn bytes(values: impl IntoIterator<Item = i64>) -> Vec<u8> {
    values.into_iter().map(|v| v as u8).collect()
}

fn random(seed: u32) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % n
    }
}

/// A tensor of a golden case under the name of a checkpoint.
fn of_golden(case: &goldens::Case<'_>, tensor: &str, name: &str, dtype: &'static str) -> Stored {
    let (shape, values) = case.f32(tensor);
    let bytes = match dtype {
        "F16" => f16s(&values),
        "F32" => f32s(&values),
        "I32" => i32s(case.ints(tensor)),
        _ => bytes(case.ints(tensor)),
    };
    (name.to_owned(), dtype, shape.into_iter().map(|d| d as usize).collect(), bytes)
}

fn transposed(values: &[f32], [rows, columns]: [u32; 2]) -> Vec<f32> {
    let at = |i: u32, j: u32| values[(j * columns + i) as usize];
    (0..columns).flat_map(|i| (0..rows).map(move |j| at(i, j))).collect()
}

/// The module `m` on the host, and read back from the GPU's words.
fn check(what: &str, weights: &Weights, [n, k]: [u32; 2], want: &[f32]) {
    let got = block_on(weights.matrix_f32("m.weight", n, k)).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(got, want, "{what}");
    assert!(weights.report().unused.is_empty(), "{what}: {:?}", weights.report().unused);
    // Slices in the middle.
    if n > 3 {
        let rows = Rows::Slice { name: "m.weight", rows: 2..n - 1 };
        let got = block_on(weights.matrix_f32(rows, n - 3, k)).expect("a slice");
        assert_eq!(got, want[(2 * k) as usize..((n - 1) * k) as usize], "{what}: a slice");
    }
}

#[test]
fn gptq_and_awq_are_those_of_the_goldens() {
    for case in goldens::op("gptq").cases() {
        let number = |name| case.number(name).expect("a number");
        let config = json!({ "quant_method": "gptq", "bits": number("bits"), "group_size": number("group_size"),
            "sym": case.flag("sym"), "desc_act": case.flag("desc_act"), "checkpoint_format": "gptq" });
        let config: Value = serde_json::from_str(&config.to_string().replace(".0,", ",")).expect("JSON");
        let tensors = [
            of_golden(&case, "qweight", "m.qweight", "I32"),
            of_golden(&case, "qzeros", "m.qzeros", "I32"),
            of_golden(&case, "scales", "m.scales", "F16"),
            of_golden(&case, "g_idx", "m.g_idx", "I32"),
        ];
        let (shape, w) = case.f32("w");
        check(&case.name, &open(&config, &tensors), [shape[1], shape[0]], &transposed(&w, [shape[0], shape[1]]));
        // Without g_idx channels lie in the order of their groups.
        if !case.flag("desc_act") {
            let plain = open(&config, &tensors[..3]);
            check(&case.name, &plain, [shape[1], shape[0]], &transposed(&w, [shape[0], shape[1]]));
        }
    }
    for case in goldens::op("awq").cases() {
        let config = json!({ "quant_method": "awq", "bits": 4, "version": "GEMM",
            "group_size": case.number("group_size").expect("a number") as u32 });
        let tensors = [
            of_golden(&case, "qweight", "m.qweight", "I32"),
            of_golden(&case, "qzeros", "m.qzeros", "I32"),
            of_golden(&case, "scales", "m.scales", "F16"),
        ];
        let (shape, w) = case.f32("w");
        check(&case.name, &open(&config, &tensors), [shape[1], shape[0]], &transposed(&w, [shape[0], shape[1]]));
    }
}

#[test]
fn small_floats_are_those_of_the_goldens() {
    for case in goldens::op("mxfp4").cases() {
        let (shape, w) = case.f32("w");
        let [experts, n, k] = [shape[0], shape[1], shape[2]];
        let (blocks, scales) = (case.ints("blocks"), case.ints("scales"));
        for e in 0..experts as usize {
            let part = |all: &[i64]| {
                let len = all.len() / experts as usize;
                bytes(all[e * len..(e + 1) * len].iter().copied())
            };
            let (n, g) = (n as usize, k as usize / 32);
            let tensors = [
                ("m.weight_blocks".to_owned(), "U8", vec![n, g, 16], part(&blocks)),
                ("m.weight_scales".to_owned(), "U8", vec![n, g], part(&scales)),
            ];
            let weights = open(&json!({ "quant_method": "mxfp4" }), &tensors);
            let len = n * k as usize;
            check(&case.name, &weights, [n as u32, k], &w[e * len..(e + 1) * len]);
        }
    }
    for case in goldens::op("nvfp4").cases() {
        let (shape, w) = case.f32("w");
        let tensors = [
            of_golden(&case, "packed", "m.weight", "U8"),
            of_golden(&case, "scales", "m.weight_scale", "F8_E4M3"),
            of_golden(&case, "global_scale", "m.weight_scale_2", "F32"),
        ];
        let config = json!({ "quant_method": "modelopt", "quant_algo": "NVFP4" });
        check(&case.name, &open(&config, &tensors), [shape[0], shape[1]], &w);
    }
    for case in goldens::op("fp8_block").cases() {
        let (shape, w) = case.f32("w");
        let tensors = [
            of_golden(&case, "w_fp8", "m.weight", "F8_E4M3"),
            of_golden(&case, "scale_inv", "m.weight_scale_inv", "F32"),
        ];
        let block = case.number("block").map(|b| b as u32);
        let config = json!({ "quant_method": "fp8", "weight_block_size": block.map(|b| [b, b]) });
        check(&case.name, &open(&config, &tensors), [shape[0], shape[1]], &w);
    }
}

/// The words of the digest's pack tests: q[k][n] = (k + 3n) & 15 with scale 1.
#[test]
fn packing_is_that_of_the_tools() {
    let q = |k: usize, n: usize| ((k + 3 * n) & 15) as f32;
    let want: Vec<f32> = (0..8).flat_map(|n| (0..8).map(move |k| q(k, n))).collect();
    let scales = || ("m.scales".to_owned(), "F16", vec![1, 8], f16s(&[1.0; 8]));
    let words = [0x7654_3210, 0xa987_6543, 0xdcba_9876, 0x0fed_cba9, 0x3210_fedc, 0x6543_210f, 0x9876_5432,
        0xcba9_8765];
    // Stored zeros of 15 are zeros of 0.
    let gptq = |zeros: i64, format: &str| {
        let config = json!({ "quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": format });
        let zeros = ("m.qzeros".to_owned(), "I32", vec![1, 1], i32s([zeros]));
        open(&config, &[("m.qweight".to_owned(), "I32", vec![1, 8], i32s(words)), zeros, scales()])
    };
    check("gptq", &gptq(0xffff_ffff, "gptq"), [8, 8], &want);
    check("gptq_v2", &gptq(0, "gptq_v2"), [8, 8], &want);
    let words = [0x5f93_2c60, 0x60a4_3d71, 0x71b5_4e82, 0x82c6_5f93, 0x93d7_60a4, 0xa4e8_71b5, 0xb5f9_82c6,
        0xc60a_93d7];
    let config = json!({ "quant_method": "awq", "bits": 4, "group_size": -1 });
    let zeros = ("m.qzeros".to_owned(), "I32", vec![1, 1], i32s([0]));
    let awq = [("m.qweight".to_owned(), "I32", vec![8, 1], i32s(words)), zeros, scales()];
    check("awq", &open(&config, &awq), [8, 8], &want);
    // 3 bits: a stream of 96 bits in three rows.
    let want: Vec<f32> = (0..32).map(|j| ((5 * j + 1) & 7) as f32).collect();
    let config = json!({ "quant_method": "gptq", "bits": 3, "group_size": -1, "checkpoint_format": "gptq_v2" });
    let tensors = [
        ("m.qweight".to_owned(), "I32", vec![3, 1], i32s([0xf19d_50f1, 0x50f1_9d50, 0x9d50_f19d])),
        ("m.qzeros".to_owned(), "I32", vec![1, 1], i32s([0])),
        ("m.scales".to_owned(), "F16", vec![1, 1], f16s(&[1.0])),
    ];
    check("3 bits", &open(&config, &tensors), [1, 32], &want);
    // compressed-tensors.
    let group = json!({ "targets": ["Linear"], "weights": { "num_bits": 4, "type": "int", "strategy": "channel" } });
    let config = json!({ "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": { "group_0": group } });
    let tensors = [
        ("m.weight_packed".to_owned(), "I32", vec![1, 1], i32s([0xc5a0_f798])),
        ("m.weight_scale".to_owned(), "F32", vec![1, 1], f32s(&[1.0])),
        ("m.weight_shape".to_owned(), "I64", vec![2], [1i64, 8].into_iter().flat_map(i64::to_le_bytes).collect()),
    ];
    check("compressed-tensors", &open(&config, &tensors), [1, 8], &[0., 1., -1., 7., -8., 2., -3., 4.]);
}
