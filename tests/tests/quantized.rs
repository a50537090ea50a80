//! Quantised checkpoints: every layout gives the values that its golden or its definition says, exactly; matrices
//! put together from quantised modules multiply as the dense ones; what cannot be read is named.

use std::sync::{Arc, LazyLock};

use girih_kernels::quant::{
    Code, Format, QuantActivation, Row, Scale, Zero, pack_row, quantize_row, unpack_row,
};
use girih_model::checkpoint::quantized::Quantization;
use girih_model::checkpoint::table::TensorTable;
use girih_model::checkpoint::weights::{TensorRows, WeightPolicy, Weights};
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
    let quantization = Quantization::of(&config.raw, &table)?;
    Ok(Weights::with_quantization(Arc::new(source), table, quantization, policy))
}

fn open(quantization: &Value, tensors: &[Stored]) -> Weights {
    try_open(quantization, tensors, WeightPolicy::default()).expect("opens")
}

static GPU: LazyLock<girih_kernels::Gpu> = LazyLock::new(gpu);

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
    let matrix = block_on(weights.matrix(&GPU, "m.weight", n, k)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let module = block_on(weights.module("m.weight", Some(k))).expect("opens").expect("quantised");
    let [part] = matrix.parts.as_slice() else { panic!("{what}: {} parts", matrix.parts.len()) };
    let read = |buffer| {
        let bytes = block_on(GPU.read(buffer)).expect("reads");
        bytes.as_chunks().0.iter().map(|&c| u32::from_le_bytes(c)).collect::<Vec<u32>>()
    };
    let codes = read(&part.buffer);
    let got: Vec<f32> = match part.format {
        girih_ops::WeightFormat::Quant(format) => {
            assert_eq!(format, module.format, "{what}");
            let scales = read(part.scales.as_ref().expect("scales"));
            let (c, s) = (format.code_words(k) as usize, format.scale_words(k) as usize);
            let row = |i: usize| unpack_row(format, k, &codes[i * c..][..c], &scales[i * s..][..s]);
            (0..n as usize).flat_map(|i| module.values(&row(i))).collect()
        }
        _ => codes.into_iter().take(want.len()).map(f32::from_bits).collect(),
    };
    assert_eq!(got, want, "{what}: words on the GPU");
    assert_eq!(matches!(part.format, girih_ops::WeightFormat::Quant(_)), module.is_packable(), "{what}");
    // Slices in the middle.
    if n > 3 {
        let rows = TensorRows::Slice { name: "m.weight", rows: 2..n - 1 };
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
        check(
            &case.name,
            &open(&config, &tensors),
            [shape[1], shape[0]],
            &transposed(&w, [shape[0], shape[1]]),
        );
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
        check(
            &case.name,
            &open(&config, &tensors),
            [shape[1], shape[0]],
            &transposed(&w, [shape[0], shape[1]]),
        );
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
    let words = [
        0x7654_3210,
        0xa987_6543,
        0xdcba_9876,
        0x0fed_cba9,
        0x3210_fedc,
        0x6543_210f,
        0x9876_5432,
        0xcba9_8765,
    ];
    // Stored zeros of 15 are zeros of 0.
    let gptq = |zeros: i64, format: &str| {
        let config =
            json!({ "quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": format });
        let zeros = ("m.qzeros".to_owned(), "I32", vec![1, 1], i32s([zeros]));
        open(&config, &[("m.qweight".to_owned(), "I32", vec![1, 8], i32s(words)), zeros, scales()])
    };
    check("gptq", &gptq(0xffff_ffff, "gptq"), [8, 8], &want);
    check("gptq_v2", &gptq(0, "gptq_v2"), [8, 8], &want);
    let words = [
        0x5f93_2c60,
        0x60a4_3d71,
        0x71b5_4e82,
        0x82c6_5f93,
        0x93d7_60a4,
        0xa4e8_71b5,
        0xb5f9_82c6,
        0xc60a_93d7,
    ];
    let config = json!({ "quant_method": "awq", "bits": 4, "group_size": -1 });
    let zeros = ("m.qzeros".to_owned(), "I32", vec![1, 1], i32s([0]));
    let awq = [("m.qweight".to_owned(), "I32", vec![8, 1], i32s(words)), zeros, scales()];
    check("awq", &open(&config, &awq), [8, 8], &want);
    // 3 bits: a stream of 96 bits in three rows.
    let want: Vec<f32> = (0..32).map(|j| ((5 * j + 1) & 7) as f32).collect();
    let config =
        json!({ "quant_method": "gptq", "bits": 3, "group_size": -1, "checkpoint_format": "gptq_v2" });
    let tensors = [
        ("m.qweight".to_owned(), "I32", vec![3, 1], i32s([0xf19d_50f1, 0x50f1_9d50, 0x9d50_f19d])),
        ("m.qzeros".to_owned(), "I32", vec![1, 1], i32s([0])),
        ("m.scales".to_owned(), "F16", vec![1, 1], f16s(&[1.0])),
    ];
    check("3 bits", &open(&config, &tensors), [1, 32], &want);
    // compressed-tensors.
    let group =
        json!({ "targets": ["Linear"], "weights": { "num_bits": 4, "type": "int", "strategy": "channel" } });
    let config = json!({ "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": { "group_0": group } });
    let tensors = [
        ("m.weight_packed".to_owned(), "I32", vec![1, 1], i32s([0xc5a0_f798])),
        ("m.weight_scale".to_owned(), "F32", vec![1, 1], f32s(&[1.0])),
        (
            "m.weight_shape".to_owned(),
            "I64",
            vec![2],
            [1i64, 8].into_iter().flat_map(i64::to_le_bytes).collect(),
        ),
    ];
    check("compressed-tensors", &open(&config, &tensors), [1, 8], &[0., 1., -1., 7., -8., 2., -3., 4.]);
}

/// compressed-tensors from codes that the test packs itself.
fn compressed(format: &str, weights: &Value, activations: &Value) -> Value {
    json!({ "quant_method": "compressed-tensors", "format": format, "config_groups": { "group_0": {
        "targets": ["re:.*nothing", "Linear"], "weights": weights, "input_activations": activations } } })
}

fn pack_words(values: &[u32], bits: usize) -> Vec<i64> {
    let per_word = 32 / bits;
    let word = |part: &[u32]| part.iter().enumerate().fold(0u32, |w, (i, v)| w | v << (bits * i));
    values.chunks(per_word).map(|part| i64::from(word(part))).collect()
}

#[test]
fn compressed_tensors_of_all_kinds() {
    let mut next = random(3);
    let (n, k, g) = (12usize, 96usize, 32usize);
    for (bits, zeros, grouped, dtype) in [
        (4usize, false, true, "F16"),
        (4, true, true, "BF16"),
        (8, false, false, "F32"),
        (8, true, true, "F16"),
        (4, true, false, "F32"),
    ] {
        let groups = if grouped { k / g } else { 1 };
        let codes: Vec<u32> = (0..n * k).map(|_| next(1 << bits)).collect();
        let points: Vec<u32> = (0..n * groups).map(|_| next(1 << bits)).collect();
        let scales: Vec<f32> = (0..n * groups).map(|_| (1 + next(100)) as f32 / 64.0).collect();
        let middle = 1 << (bits - 1);
        let value = |i: usize| {
            let at = i / k * groups + i % k / (k / groups);
            let zero = if zeros { points[at] } else { middle };
            (codes[i] as f32 - zero as f32) * scales[at]
        };
        let want: Vec<f32> = (0..n * k).map(value).collect();
        let packed: Vec<i64> = codes.chunks(k).flat_map(|row| pack_words(row, bits)).collect();
        let scale_bytes = match dtype {
            "F16" => f16s(&scales),
            "BF16" => scales.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            _ => f32s(&scales),
        };
        let height = (n * bits).div_ceil(32);
        let columns: Vec<Vec<i64>> = (0..groups)
            .map(|g| pack_words(&points.iter().skip(g).step_by(groups).copied().collect::<Vec<_>>(), bits))
            .collect();
        let point_words = (0..height).flat_map(|r| columns.iter().map(move |c| c[r]));
        let mut tensors = vec![
            ("m.weight_packed".to_owned(), "I32", vec![n, k * bits / 32], i32s(packed)),
            ("m.weight_scale".to_owned(), dtype, vec![n, groups], scale_bytes),
        ];
        if zeros {
            let shape = vec![height, groups];
            tensors.push(("m.weight_zero_point".to_owned(), "I32", shape, i32s(point_words)));
        }
        let (strategy, group) = if grouped { ("group", Some(g)) } else { ("channel", None) };
        let weights = json!({ "num_bits": bits, "type": "int", "symmetric": !zeros, "strategy": strategy,
            "group_size": group });
        let config = compressed("pack-quantized", &weights, &Value::Null);
        let what = format!("{bits} bits, zeros {zeros}, {strategy}, {dtype}");
        check(&what, &open(&config, &tensors), [n as u32, k as u32], &want);
    }
    // W8A8.
    let codes: Vec<i64> = (0..n * k).map(|_| i64::from(next(256)) - 128).collect();
    let scales: Vec<f32> = (0..n).map(|i| 0.5 + i as f32).collect();
    let tensors = [
        ("m.weight".to_owned(), "I8", vec![n, k], bytes(codes.iter().copied())),
        ("m.weight_scale".to_owned(), "F32", vec![n, 1], f32s(&scales)),
    ];
    let weights = json!({ "num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true });
    let tokens =
        json!({ "num_bits": 8, "type": "int", "strategy": "token", "dynamic": true, "symmetric": true });
    let weights = open(&compressed("int-quantized", &weights, &tokens), &tensors);
    let want: Vec<f32> = codes.iter().enumerate().map(|(i, &c)| c as f32 * scales[i / k]).collect();
    check("int-quantized", &weights, [n as u32, k as u32], &want);
    let module = block_on(weights.module("m.weight", None)).expect("opens").expect("quantised");
    assert_eq!((module.activation, [module.n, module.k]), ("int8-token".parse().expect("a type"), [12, 96]));
    // FP8, one scale.
    let codes: Vec<i64> = (0..n * k).map(|_| i64::from(next(0x7f))).collect();
    let scale =
        ("m.weight_scale".to_owned(), "BF16", vec![1], half::bf16::from_f32(0.25).to_le_bytes().to_vec());
    let tensors = [("m.weight".to_owned(), "F8_E4M3", vec![n, k], bytes(codes.iter().copied())), scale];
    let weights = json!({ "num_bits": 8, "type": "float", "strategy": "tensor" });
    let value = |&c: &i64| girih_kernels::quant::float::from_e4m3(c as u8).expect("a number") * 0.25;
    let want: Vec<f32> = codes.iter().map(value).collect();
    let config = compressed("float-quantized", &weights, &Value::Null);
    check("float-quantized", &open(&config, &tensors), [n as u32, k as u32], &want);
    // FP4: the global scale of NVFP4 divides here.
    let golden = goldens::op("nvfp4");
    let case = &golden.cases()[0];
    let (shape, w) = case.f32("w");
    let divisor = f32s(&[1.0 / case.f32("global_scale").1[0]]);
    let tensors = [
        of_golden(case, "packed", "m.weight_packed", "U8"),
        of_golden(case, "scales", "m.weight_scale", "F8_E4M3"),
        ("m.weight_global_scale".to_owned(), "F32", vec![1], divisor),
    ];
    let weights = json!({ "num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16 });
    let weights = open(&compressed("nvfp4-pack-quantized", &weights, &Value::Null), &tensors);
    let got = block_on(weights.matrix_f32("m.weight", shape[0], shape[1])).expect("loads");
    assert_close("nvfp4-pack-quantized", &got, &w, 0.0, 1e-6);
}

const FORMATS: [Format; 6] =
    [Format::Q4_0, Format::Q8_0, Format::Q4_K, Format::MXFP4, Format::NVFP4, Format::QOQ];

/// A module in girih's own layout, and the values of its rows.
fn girih_module(name: &str, format: Format, values: &[f32], k: usize) -> (Vec<Stored>, Vec<Row>) {
    let rows: Vec<Row> = values.chunks(k).map(|row| quantize_row(format, row)).collect();
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in &rows {
        pack_row(format, row, &mut codes, &mut scales);
    }
    let n = rows.len();
    let tensor = |kind: &str, words: Vec<u32>| {
        let shape = vec![n, words.len() / n];
        (format!("{name}.{kind}"), "U32", shape, words.into_iter().flat_map(u32::to_le_bytes).collect())
    };
    (vec![tensor("weight_codes", codes), tensor("weight_scales", scales)], rows)
}

fn normal(count: usize, seed: u32) -> Vec<f32> {
    let mut next = random(seed);
    (0..count).map(|_| (0..4).map(|_| next(2000) as f32 / 1000.0 - 1.0).sum()).collect()
}

#[test]
fn girihs_own_layout_round_trips() {
    let gpu = gpu();
    for (format, k) in FORMATS.into_iter().flat_map(|f| [(f, 64usize), (f, 80)]) {
        let values = normal(10 * k, 5);
        let (mut tensors, rows) = girih_module("m", format, &values, k);
        tensors.push(("m.input_scale".to_owned(), "F32", vec![k], f32s(&vec![0.5; k])));
        let config = json!({ "quant_method": "girih", "version": 1, "scheme": "w4a8", "seed": 0, "modules": {
            "m": { "format": format.to_string(), "activation": "int8-token", "hadamard": 0 } } });
        let weights = open(&config, &tensors);
        let want: Vec<f32> = rows.iter().flat_map(|r| r.values(format)).map(|v| v as f32).collect();
        check(&format.to_string(), &weights, [10, k as u32], &want);
        let matrix = block_on(weights.matrix(&gpu, "m.weight", 10, k as u32)).expect("loads");
        let read = block_on(gpu.read(&matrix.parts[0].buffer)).expect("reads");
        assert_eq!(read[..tensors[0].3.len()], tensors[0].3, "{format}: codes");
        let scales = matrix.parts[0].scales.as_ref().expect("scales");
        let read = block_on(gpu.read(scales)).expect("reads");
        assert_eq!(read[..tensors[1].3.len()], tensors[1].3, "{format}: scales");
        assert!(matches!(matrix.input.mix, girih_ops::Mix::Hadamard { block: 0 }));
        assert_eq!(matrix.input.activation, "int8-token".parse().expect("a type"));
        assert_eq!(matrix.input.scale.as_ref().map(|s| s.shape().to_vec()), Some(vec![k as u32]));
    }
}

/// q, k and v of other formats become parts; gate and up become one format, or floats.
#[test]
fn fused_modules() {
    let gpu = gpu();
    let k = 64;
    let f32_scales = Format { scale: Scale::F32, ..Format::Q4_0 };
    let points = Format { zero: Zero::Point, ..Format::Q4_0 };
    let formats = [Format::Q4_0, f32_scales, points, Format::Q8_0];
    let (mut tensors, mut modules, mut want) = (Vec::new(), serde_json::Map::new(), Vec::new());
    for (i, format) in formats.into_iter().enumerate() {
        let (stored, rows) = girih_module(&format!("m{i}"), format, &normal(6 * k, i as u32), k);
        tensors.extend(stored);
        modules.insert(format!("m{i}"), json!({ "format": format.to_string() }));
        want.push(
            rows.iter()
                .map(|r| r.values(format).into_iter().map(|v| v as f32).collect())
                .collect::<Vec<Vec<f32>>>(),
        );
    }
    tensors.push(("d.weight".to_owned(), "F16", vec![6, k], f16s(&normal(6 * k, 9))));
    want.push(
        normal(6 * k, 9)
            .chunks(k)
            .map(|r| r.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect())
            .collect(),
    );
    let config = json!({ "quant_method": "girih", "version": 1, "modules": modules });
    let names = ["m0.weight", "m1.weight", "m2.weight", "m3.weight", "d.weight"];
    for (picked, parts, notes) in
        [(vec![0, 0], 1, 0), (vec![0, 1, 2], 1, 0), (vec![0, 3], 2, 0), (vec![0, 4, 3], 3, 0)]
    {
        let weights = open(&config, &tensors);
        let rows: Vec<&str> = picked.iter().map(|&i| names[i]).collect();
        let n = 6 * picked.len() as u32;
        let all: Vec<f32> = picked.iter().flat_map(|&i| want[i].concat()).collect();
        assert_eq!(block_on(weights.matrix_f32(TensorRows::Concat(&rows), n, 64)).expect("loads"), all);
        let matrix = block_on(weights.matrix(&gpu, TensorRows::Concat(&rows), n, 64)).expect("loads");
        assert_eq!(matrix.parts.len(), parts, "{rows:?}");
        assert_eq!(weights.report().notes.len(), notes);
        product(&gpu, &matrix, &all);
    }
    for (a, b, notes) in [(0, 0, 0), (0, 1, 0), (1, 2, 0), (0, 3, 1), (3, 4, 1)] {
        let weights = open(&config, &tensors);
        let rows = TensorRows::Interleave(names[a], names[b]);
        let all: Vec<f32> =
            want[a].iter().zip(&want[b]).flat_map(|(x, y)| [x.clone(), y.clone()].concat()).collect();
        let matrix = block_on(weights.matrix(&gpu, rows, 12, 64)).expect("loads");
        assert_eq!((matrix.parts.len(), weights.report().notes.len()), (1, notes), "{a} {b}");
        product(&gpu, &matrix, &all);
    }
    let weights = open(&config, &tensors);
    let halves = block_on(weights.matrix(&gpu, TensorRows::ConcatHalvesInterleaved("m0.weight"), 6, 64))
        .expect("loads");
    let all: Vec<f32> = (0..3).flat_map(|i| [want[0][i].clone(), want[0][i + 3].clone()].concat()).collect();
    product(&gpu, &halves, &all);
}

/// x · Wᵀ on the GPU is that of these values.
fn product(gpu: &girih_kernels::Gpu, matrix: &girih_ops::Matrix, values: &[f32]) {
    let k = matrix.k as usize;
    let x = normal(k, 77);
    let want: Vec<f32> = values
        .chunks(k)
        .map(|row| row.iter().zip(&x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32)
        .collect();
    let mut frame = girih_ops::Frame::new(gpu);
    let x = girih_ops::Tensor::from_f32(gpu, &x, &[1, matrix.k]).expect("x");
    let y = girih_ops::linear(&mut frame, &x, matrix, &girih_ops::Linear::default()).expect("a product");
    frame.submit().expect("runs");
    assert_close("product", &block_on(y.to_f32(gpu)).expect("reads"), &want, 1e-3, 1e-4);
}

#[test]
fn round_to_nearest_on_load() {
    let gpu = gpu();
    let values = normal(8 * 64, 1);
    let tensors = |name: &str| [(name.to_owned(), "F32", vec![8, 64], f32s(&values))];
    let policy = WeightPolicy { force: Some(Format::Q4_0.into()), activations: Some(QuantActivation::INT8) };
    let format_of = |name: &str, table: bool| {
        let weights = try_open(&Value::Null, &tensors(name), policy).expect("opens");
        let matrix = if table {
            block_on(weights.table_matrix(&gpu, name, 8, 64))
        } else {
            block_on(weights.matrix(&gpu, name, 8, 64))
        };
        let matrix = matrix.expect("loads");
        (matrix.parts[0].format, matrix.input.activation)
    };
    assert_eq!(format_of("m.weight", false), (Format::Q4_0.into(), QuantActivation::INT8));
    assert_eq!(format_of("lm_head.weight", false), (Format::Q8_0.into(), QuantActivation::INT8));
    assert_eq!(
        format_of("embed_tokens.weight", true),
        (girih_ops::WeightFormat::F32, QuantActivation::Float)
    );
}

fn gptq_tensors() -> (Value, Vec<Stored>) {
    let config = json!({ "quant_method": "gptq", "bits": 4, "group_size": 32 });
    let tensors = vec![
        ("m.qweight".to_owned(), "I32", vec![8, 8], i32s(0..64)),
        ("m.qzeros".to_owned(), "I32", vec![2, 1], i32s([0x7777_7777; 2])),
        ("m.scales".to_owned(), "F16", vec![2, 8], f16s(&[1.0; 16])),
        ("m.g_idx".to_owned(), "I32", vec![64], i32s((0..64).map(|i| i / 32))),
    ];
    (config, tensors)
}

#[test]
fn what_no_layout_allows_is_named() {
    let (config, tensors) = gptq_tensors();
    let load = |config: &Value, tensors: &[Stored]| {
        block_on(try_open(config, tensors, WeightPolicy::default())?.matrix_f32("m.weight", 8, 64))
    };
    load(&config, &tensors).expect("the tensors are good");
    let without = |i: usize| {
        let mut all = tensors.clone();
        all.remove(i);
        load(&config, &all).expect_err("a tensor is missing")
    };
    for (i, name) in [(0, "m.qweight"), (1, "m.qzeros"), (2, "m.scales")] {
        let error = without(i);
        assert!(matches!(&error, LoadError::Tensors { missing, .. } if missing == &[name]), "{error}");
    }
    let with = |i: usize, dtype: &'static str, shape: Vec<usize>, bytes: Vec<u8>| {
        let mut all = tensors.clone();
        all[i] = (all[i].0.clone(), dtype, shape, bytes);
        load(&config, &all).expect_err("a tensor is wrong")
    };
    for (i, shape, bytes) in [
        (0, vec![7, 8], i32s(0..56)),
        (0, vec![8, 7], i32s(0..56)),
        (1, vec![1, 1], i32s([7])),
        (1, vec![2, 2], i32s([7; 4])),
        (3, vec![63], i32s((0..63).map(|i| i / 32))),
    ] {
        let error = with(i, "I32", shape, bytes);
        let named = matches!(&error, LoadError::Tensors { mis_shaped, .. } if mis_shaped.len() == 1);
        assert!(named, "{i}: {error}");
    }
    let error = with(0, "F32", vec![8, 8], f32s(&[0.0; 64]));
    assert!(
        matches!(&error, LoadError::Quantized { tensor, got, .. } if tensor == "m.qweight" && got.contains("F32"))
    );
    for group in [2, -1] {
        let error = with(3, "I32", vec![64], i32s((0..64).map(|i| if i == 5 { group } else { i / 32 })));
        let named = matches!(&error, LoadError::Element { tensor, index: 5, .. } if tensor == "m.g_idx");
        assert!(named, "{error}");
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let mut scales = [1.0; 16];
        scales[9] = bad;
        let error = with(2, "F16", vec![2, 8], f16s(&scales));
        assert!(
            matches!(&error, LoadError::NotFinite { tensor, index: 9, .. } if tensor == "m.scales"),
            "{error}"
        );
    }
    // A scale of 0 is a group of zeros.
    let mut all = tensors.clone();
    all[2].3 = f16s(&[0.0; 16]);
    assert!(load(&config, &all).expect("zeros").iter().all(|v| *v == 0.0));
    // Groups that are not whole.
    let ragged = |method: &str, qweight: Vec<usize>, zeros: usize| {
        let tensors = [
            ("m.qweight".to_owned(), "I32", qweight, i32s(0..64)),
            ("m.qzeros".to_owned(), "I32", vec![zeros, 1], i32s(vec![0; zeros])),
            ("m.scales".to_owned(), "F16", vec![zeros, 8], f16s(&vec![1.0; 8 * zeros])),
        ];
        load(&json!({ "quant_method": method, "bits": 4, "group_size": 24 }), &tensors)
    };
    for (method, shape) in [("gptq", vec![8, 8]), ("awq", vec![64, 1])] {
        let error = ragged(method, shape, 3).expect_err("a shorter last group");
        assert!(matches!(&error, LoadError::Quantized { tensor, .. } if tensor == "m.qweight"), "{error}");
        assert!(error.to_string().contains("multiple of the group size 24"), "{error}");
    }
    // Channels that were quantised in the order of their activations, without it.
    for (config, fails) in [
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true }), true),
        (
            json!({ "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true,
                "static_groups": true }),
            false,
        ),
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": false }), false),
    ] {
        load(&config, &tensors).expect("in order");
        let got = load(&config, &tensors[..3]);
        let named = matches!(&got, Err(LoadError::Quantized { tensor, .. }) if tensor == "m.g_idx");
        assert_eq!((named, got.is_err()), (fails, fails), "{config}: {got:?}");
    }
    // Other layouts.
    let fp8 = |code: u8, scale: f32, shape: Vec<usize>| {
        let mut codes = vec![0x38; 8 * 64];
        codes[70] = code;
        let count = shape.iter().product::<usize>();
        let tensors = [
            ("m.weight".to_owned(), "F8_E4M3", vec![8, 64], codes),
            ("m.weight_scale".to_owned(), "F32", shape, f32s(&vec![scale; count])),
        ];
        load(&json!({ "quant_method": "fp8" }), &tensors)
    };
    fp8(0x38, 1.0, vec![1]).expect("good");
    assert!(matches!(fp8(0x7f, 1.0, vec![1]), Err(LoadError::NotFinite { index: 70, .. })));
    assert!(matches!(fp8(0x38, f32::NAN, vec![8, 1]), Err(LoadError::NotFinite { .. })));
    assert!(matches!(fp8(0x38, 0.0, vec![1]), Err(LoadError::Element { index: 0, .. })));
    assert!(matches!(fp8(0x38, 1.0, vec![2]), Err(LoadError::Tensors { .. })));
    let mx = |scale: u8| {
        let tensors = [
            ("m.weight_blocks".to_owned(), "U8", vec![8, 2, 16], vec![0x21; 256]),
            ("m.weight_scales".to_owned(), "U8", vec![8, 2], vec![scale; 16]),
        ];
        load(&json!({ "quant_method": "mxfp4" }), &tensors)
    };
    mx(127).expect("good");
    assert!(matches!(mx(255), Err(LoadError::NotFinite { index: 0, .. })));
    // Policies.
    let policy = |force, activations| {
        let weights = try_open(&config, &tensors, WeightPolicy { force, activations }).expect("opens");
        block_on(weights.matrix(&gpu(), "m.weight", 8, 64))
    };
    let error = policy(Some(Format::Q8_0.into()), None).expect_err("another format");
    assert!(matches!(&error, LoadError::Requantize { tensor, .. } if tensor == "m.weight"), "{error}");
    let decoded = policy(Some(girih_ops::WeightFormat::F32), None).expect("decodes");
    assert_eq!(decoded.parts[0].format, girih_ops::WeightFormat::F32);
    let matrix = policy(None, Some(QuantActivation::INT8)).expect("loads");
    assert_eq!(matrix.input.activation, QuantActivation::INT8);
}

#[test]
fn configurations_that_cannot_be_read_are_named() {
    let (_, tensors) = gptq_tensors();
    for (config, field) in [
        (json!({ "quant_method": "bitsandbytes" }), "quant_method"),
        (json!({ "quant_method": "qoq" }), "quant_method"),
        (json!({}), "quant_method"),
        (json!("gptq"), ""),
        (json!({ "quant_method": "gptq", "bits": 5 }), "bits"),
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": 0 }), "group_size"),
        (json!({ "quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin" }), "checkpoint_format"),
        (json!({ "quant_method": "awq", "bits": 8 }), "bits"),
        (json!({ "quant_method": "awq", "bits": 4, "version": "gemv" }), "version"),
        (json!({ "quant_method": "fp8", "weight_block_size": [128] }), "weight_block_size"),
        (json!({ "quant_method": "modelopt", "quant_algo": "W4A8" }), "quant_algo"),
        (json!({ "quant_method": "girih", "version": 2, "modules": {} }), "version"),
        (json!({ "quant_method": "girih", "version": 1 }), "modules"),
        (
            json!({ "quant_method": "girih", "version": 1, "modules": { "m": { "format": "int4" } } }),
            "modules.m.format",
        ),
        (json!({ "quant_method": "compressed-tensors" }), "config_groups"),
        (compressed("marlin-24", &json!({ "num_bits": 4 }), &Value::Null), "format"),
        (
            compressed("pack-quantized", &json!({ "num_bits": 3 }), &Value::Null),
            "config_groups.group_0.weights.num_bits",
        ),
    ] {
        let error = try_open(&config, &tensors, WeightPolicy::default()).expect_err(field);
        let want = if field.is_empty() {
            "quantization_config".into()
        } else {
            format!("quantization_config.{field}")
        };
        assert!(matches!(&error, LoadError::Config { field, .. } if *field == want), "{config}: {error}");
    }
    let unknown = try_open(&json!({ "quant_method": "hqq" }), &tensors, WeightPolicy::default());
    let message = unknown.expect_err("unknown").to_string();
    assert!(message.contains("hqq") && message.contains("compressed-tensors"), "{message}");
    let tiles = try_open(&json!({ "quant_method": "qserve" }), &tensors, WeightPolicy::default());
    let message = tiles.expect_err("not read").to_string();
    assert!(message.contains("--scheme qoq") && message.contains("tiles"), "{message}");
}

/// Groups of compressed-tensors count for the modules of their class, in no particular order.
#[test]
fn groups_describe_the_modules_of_their_class() {
    let int = |bits: u32| json!({ "num_bits": bits, "type": "int", "strategy": "channel" });
    let tokens = json!({ "num_bits": 8, "type": "int", "strategy": "token", "dynamic": true });
    let tensors = |name: &str| {
        [
            (format!("{name}.weight_packed"), "I32", vec![8, 8], i32s(0..64)),
            (format!("{name}.weight_scale"), "F32", vec![8, 1], f32s(&[1.0; 8])),
        ]
    };
    let tensors: Vec<Stored> = ["layers.0.q_proj", "embed_tokens"].iter().flat_map(|n| tensors(n)).collect();
    let load = |groups: Value, name: &str| {
        let config = json!({ "quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": groups });
        let weights = try_open(&config, &tensors, WeightPolicy::default())?;
        let module = block_on(weights.module(&format!("{name}.weight"), None))?.expect("quantised");
        Ok::<_, LoadError>((module.format.code.bits(), module.activation))
    };
    let float = QuantActivation::Float;
    // Groups without weights say nothing about them.
    let all = json!({ "attention": { "targets": ["LlamaAttention", "re:(?=unknown syntax)"], "weights": null },
        "cache": { "targets": ["re:.*proj"], "weights": null, "input_activations": tokens },
        "group_0": { "targets": ["Linear", "Embedding"], "weights": int(4) } });
    assert_eq!(load(all, "layers.0.q_proj").expect("loads"), (4, float));
    let all = json!({ "a": { "targets": ["Embedding"], "weights": int(4), "input_activations": tokens },
        "b": { "targets": ["Linear"], "weights": int(4) } });
    assert_eq!(load(all.clone(), "layers.0.q_proj").expect("loads"), (4, float));
    let token: QuantActivation = "int8-token".parse().expect("a type");
    assert_eq!(load(all, "embed_tokens").expect("loads"), (4, token));
    // A name before a pattern before a class.
    let all = json!({ "a": { "targets": ["Linear", "Embedding"], "weights": int(8) },
        "b": { "targets": ["re:.*proj"], "weights": int(8) },
        "c": { "targets": ["layers.0.q_proj"], "weights": int(4) } });
    assert_eq!(load(all, "layers.0.q_proj").expect("loads"), (4, float));
    let error = load(json!({ "a": { "targets": ["LlamaAttention"], "weights": int(4) } }), "embed_tokens");
    let error = error.expect_err("another class");
    assert!(matches!(&error, LoadError::Config { field, .. } if field.ends_with("config_groups")), "{error}");
    // Channels in an order of their own, which is not there.
    let ordered = json!({ "num_bits": 4, "type": "int", "strategy": "group", "group_size": 32,
        "actorder": "group" });
    let tensors = [
        ("m.weight_packed".to_owned(), "I32", vec![8, 8], i32s(0..64)),
        ("m.weight_scale".to_owned(), "F32", vec![8, 2], f32s(&[1.0; 16])),
    ];
    let weights = open(&compressed("pack-quantized", &ordered, &Value::Null), &tensors);
    let error = block_on(weights.matrix_f32("m.weight", 8, 64)).expect_err("no order");
    assert!(matches!(&error, LoadError::Quantized { tensor, .. } if tensor == "m.weight_g_idx"), "{error}");
}

#[test]
fn patterns_that_are_made_to_take_long_are_refused() {
    let open = |target: &str, module: &str| {
        let group = json!({ "targets": [target], "weights": { "num_bits": 4, "type": "int" } });
        let config = json!({ "quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": { "group_0": group } });
        let tensors = [(format!("{module}.weight_packed"), "I32", vec![8, 8], i32s(0..64))];
        try_open(&config, &tensors, WeightPolicy::default())
    };
    open("re:.*a", &"a".repeat(1024)).expect("matches");
    let long = "a".repeat(200_000);
    for (target, module) in
        [("re:.*x", long.as_str()), (&format!("re:{long}"), "m"), ("re:((((a*)*)*)*)*b", &long[..1024])]
    {
        let error = open(target, module).expect_err("refused");
        assert!(matches!(&error, LoadError::Config { .. }), "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
}

/// Rows of girih's own layout are padded, so the number of columns comes from elsewhere or stays unknown.
#[test]
fn columns_of_padded_rows() {
    let k = 90;
    for format in [
        Format::symmetric(Code::Int4, 32),
        Format::symmetric(Code::Int5, 32),
        Format::asymmetric(Code::Int6, 16),
        Format::symmetric(Code::Int8, Format::ROW),
    ] {
        let (tensors, _) = girih_module("m", format, &normal(4 * k, 2), k);
        // No construction of order 90 or 96 / 90: not checked while the columns are not known.
        for hadamard in [json!({}), json!({ "hadamard": 30 })] {
            let mut m = hadamard.clone();
            m["format"] = json!(format.to_string());
            let config = json!({ "quant_method": "girih", "version": 1, "modules": { "m": m } });
            let weights = open(&config, &tensors);
            let module = block_on(weights.module("m.weight", None)).expect("opens").expect("quantised");
            assert_eq!(module.k, 96, "{format}");
            let stored = weights.stored("m.weight").expect("quantised");
            assert!(!stored.tells_columns(weights.scope("m").tensors()));
        }
        let config = json!({ "quant_method": "girih", "version": 1,
            "modules": { "m": { "format": format.to_string() } } });
        let eye =
            |n: usize| f32s(&(0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect::<Vec<_>>());
        let scale = vec![("m.input_scale".to_owned(), "F32", vec![k], f32s(&vec![1.0; k]))];
        let factors = vec![
            ("m.input_p1".to_owned(), "F32", vec![9, 9], eye(9)),
            ("m.input_p2".to_owned(), "F32", vec![10, 10], eye(10)),
        ];
        for more in [scale, factors] {
            let weights = open(&config, &[tensors.clone(), more].concat());
            let module = block_on(weights.module("m.weight", None)).expect("opens").expect("quantised");
            assert_eq!(module.k, 90, "{format}");
            assert!(
                weights.stored("m.weight").expect("quantised").tells_columns(weights.scope("m").tensors())
            );
        }
    }
}

#[test]
fn transforms_that_kernels_cannot_do_are_named() {
    let load = |k: usize, module: Value, more: Vec<Stored>| {
        let (tensors, _) = girih_module("m", Format::Q4_0, &normal(2 * k, 2), k);
        let mut module = module;
        module["format"] = json!(Format::Q4_0.to_string());
        let config = json!({ "quant_method": "girih", "version": 1, "modules": { "m": module } });
        let weights = open(&config, &[tensors, more].concat());
        block_on(weights.module("m.weight", Some(k as u32))).map(|_| ())
    };
    load(96, json!({ "hadamard": 0 }), Vec::new()).expect("order 96");
    for (k, block) in [(96, 7), (90, 0), (90, 30), (96, 192)] {
        let error = load(k, json!({ "hadamard": block }), Vec::new()).expect_err("no such transform");
        let named = matches!(&error, LoadError::Quantized { tensor, .. } if tensor == "m.weight_codes");
        assert!(named, "{k} {block}: {error}");
    }
    let factors = vec![
        ("m.input_p1".to_owned(), "F32", vec![1, 1], f32s(&[1.0])),
        ("m.input_p2".to_owned(), "F32", vec![2080, 2080], vec![0; 4 * 2080 * 2080]),
    ];
    let error = load(2080, json!({}), factors).expect_err("too large");
    assert!(matches!(&error, LoadError::Quantized { tensor, .. } if tensor == "m.input_p2"), "{error}");
}

/// The scale of a row under which groups have theirs.
#[test]
fn rows_whose_scale_is_0_must_be_zeros() {
    for format in [Format::NVFP4, Format::QOQ] {
        let k = 256;
        let config = json!({ "quant_method": "girih", "version": 1,
            "modules": { "m": { "format": format.to_string() } } });
        let mut values = normal(6 * k, 4);
        values[3 * k..4 * k].fill(0.0);
        let (mut tensors, _) = girih_module("m", format, &values, k);
        let words = 4 * format.scale_words(k as u32) as usize;
        for row in [3, 4] {
            tensors[1].3[row * words..][..4].fill(0);
            let got = block_on(open(&config, &tensors).matrix_f32("m.weight", 6, k as u32));
            if row == 3 {
                assert!(got.expect("zeros")[3 * k..4 * k].iter().all(|v| *v == 0.0), "{format}");
                continue;
            }
            let error = got.expect_err("a row is lost");
            let named = matches!(&error, LoadError::Element { tensor, index, .. }
                if tensor == "m.weight_scales" && *index == 4 * words as u64 / 4);
            assert!(named, "{format}: {error}");
        }
    }
}

#[test]
fn integer_activations_want_groups_that_integer_kernels_read() {
    for (group, fits) in [(16, true), (32, true), (48, false), (24, false), (64, true)] {
        let format = Format { group, ..Format::Q4_0 };
        let (tensors, _) = girih_module("m", format, &normal(4 * 192, 2), 192);
        let config = json!({ "quant_method": "girih", "version": 1,
            "modules": { "m": { "format": format.to_string() } } });
        let policy = WeightPolicy { force: None, activations: Some(QuantActivation::INT8) };
        let weights = try_open(&config, &tensors, policy).expect("opens");
        match block_on(weights.matrix(&GPU, "m.weight", 4, 192)) {
            Ok(_) => assert!(fits, "{format}"),
            Err(error) => {
                assert!(!fits && matches!(error, LoadError::Activations { .. }), "{format}: {error}");
            }
        }
    }
}

/// A golden with its tensors, those of linear layers changed.
fn changed(name: &str, mut change: impl FnMut(&str, Vec<i64>) -> Vec<i64>) -> MemorySource {
    let path = goldens::dir().join("models").join(name);
    let tensors = Tensors::open(&path.join("model.safetensors"));
    let stored: Vec<Stored> = tensors
        .names()
        .into_iter()
        .map(|name| {
            let (shape, values) = tensors.f32(&name);
            let float = !["qweight", "qzeros", "g_idx"].iter().any(|kind| name.ends_with(kind));
            let bytes = if float { f16s(&values) } else { i32s(change(&name, tensors.ints(&name))) };
            (name, if float { "F16" } else { "I32" }, shape, bytes)
        })
        .collect();
    let config = std::fs::read(path.join("config.json")).expect("a configuration");
    MemorySource::new().with("config.json", config).with("model.safetensors", file(&stored))
}

fn logits(source: MemorySource, weights: WeightPolicy) -> (Vec<f32>, usize) {
    let options = LoadOptions { weights, ..LoadOptions::default() };
    let model = block_on(Model::load(&gpu(), Arc::new(source), options, |_| ())).expect("loads");
    let token_ids: Vec<u32> = (0..40).map(|i| i * 7 % model.config().vocab_size).collect();
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let input = [Input { slot: 0, token_ids: &token_ids }];
    let logits = session.forward(&input, girih_model::Rows::All, None).expect("forward");
    (block_on(logits.to_f32(session.gpu())).expect("reads"), model.notes().len())
}

/// Channels in the order of an activation-ordered quantiser: groups of one size, the same for fused modules; another
/// for each; groups of different sizes.
#[test]
fn channels_in_any_order_give_the_logits_of_decoded_weights() {
    for (what, notes) in [("equal", 0), ("own", 4), ("irregular", 8)] {
        let mut seeds = std::collections::BTreeMap::new();
        let mut source = || {
            changed("llama_gptq_int4", |name, mut values| {
                if name.ends_with("g_idx") {
                    let fused = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"];
                    let key = match what {
                        "own" => name.to_owned(),
                        _ => fused.iter().fold(name.to_owned(), |key, f| key.replace(f, "fused")),
                    };
                    let seed = seeds.len() as u32 + 1;
                    let mut next = random(*seeds.entry(key).or_insert(seed));
                    for i in (1..values.len()).rev() {
                        values.swap(i, next(i as u32 + 1) as usize);
                    }
                    if what == "irregular" {
                        values[0] = 1 - values[0].min(1);
                    }
                }
                values
            })
        };
        let decode = WeightPolicy { force: Some(girih_ops::WeightFormat::F32), activations: None };
        let (want, _) = logits(source(), decode);
        let (got, count) = logits(source(), WeightPolicy::default());
        assert_close(what, &got, &want, 5e-4, 1e-4);
        assert_eq!(count, notes, "{what}");
    }
}
