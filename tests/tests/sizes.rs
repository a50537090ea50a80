//! Shapes, counts and positions whose product or sum wraps 32 or 64 bits are typed errors, not small sizes.

use girih_kernels::{GpuError, KernelError, Recorder, matmul};
use girih_ops::{Attention, Batch, Chunk, DType, Frame, KvSize, KvView, OpError, Tensor, attention};
use girih_tests::gpu;

#[test]
fn shapes_that_wrap_64_bits_fit_no_buffer() {
    let gpu = gpu();
    let buffer = gpu.alloc(64).expect("a buffer");
    // 2^64 elements wrap to 0, 2^62 elements of 4 bytes to 0 bytes, 2^64 + 2^35 to something below the size of the file.
    let wraps: [&[u32]; 4] =
        [&[1 << 16; 4], &[1 << 31, 1 << 31], &[1 << 22, 1 << 21, 1 << 21], &[u32::MAX; 5]];
    for shape in wraps {
        let wrapped = Tensor::from_buffer(buffer.clone(), shape, DType::F32);
        assert!(matches!(wrapped, Err(OpError::Shape { op: "tensor", .. })), "{shape:?}");
        let uploaded = Tensor::from_f32(&gpu, &[], shape);
        assert!(matches!(uploaded, Err(OpError::Shape { op: "upload", .. })), "{shape:?}");
        let none = Tensor::from_f32(&gpu, &[], &[0]).expect("no elements");
        assert!(matches!(none.reshape(shape), Err(OpError::Shape { op: "reshape", .. })), "{shape:?}");
        let allocated = Frame::new(&gpu).alloc(shape, DType::F32);
        assert!(
            matches!(allocated, Err(OpError::Shape { .. } | OpError::Gpu(GpuError::BufferTooLarge { .. }))),
            "{shape:?}"
        );
    }
    let empty = Tensor::from_f32(&gpu, &[], &[u32::MAX, u32::MAX, u32::MAX, 0]).expect("no elements");
    assert!(empty.is_empty() && empty.reshape(&[0, 7]).is_ok());
}

#[test]
fn caches_that_wrap_are_no_small_caches() {
    let gpu = gpu();
    for sizes in [[1 << 16; 4], [1 << 31, 1 << 31, 1, 1], [u32::MAX; 4], [1 << 8, 1 << 8, 1 << 16, 1]] {
        let [slots, heads, capacity, dim] = sizes;
        for f16 in [false, true] {
            let cache =
                KvView::alloc(&gpu, KvSize { slots, num_kv_heads: heads, capacity, head_dim: dim, f16 });
            assert!(matches!(cache, Err(OpError::Value { op: "kv_cache", .. })), "{sizes:?}");
        }
    }
}

#[test]
fn positions_beyond_32_bits_are_an_error() {
    let gpu = gpu();
    let chunk = |start| Chunk { slot: 0, start, token_ids: &[1, 2] };
    let error = Batch::upload(&gpu, &[chunk(u32::MAX - 1)]).expect_err("the position behind wraps to 0");
    assert!(matches!(error, OpError::Value { op: "batch", .. }), "{error}");
    Batch::upload(&gpu, &[chunk(u32::MAX - 2)]).expect("the last one that fits");
}

#[test]
fn heads_that_wrap_a_row_are_an_error() {
    let gpu = gpu();
    let kv = KvView::alloc(&gpu, KvSize { slots: 1, num_kv_heads: 1, capacity: 8, head_dim: 64, f16: false })
        .expect("a cache");
    let batch = Batch::upload(&gpu, &[Chunk { slot: 0, start: 0, token_ids: &[1] }]).expect("a batch");
    let q = Tensor::from_f32(&gpu, &[], &[1, 0]).expect("no channels");
    // 2^26 heads of 64 channels are 2^32, which wraps to the 0 channels of q.
    let opts = Attention {
        num_q_heads: 1 << 26,
        scale: 1.0,
        causal: true,
        window: None,
        softcap: None,
        sinks: None,
    };
    let error = attention(&mut Frame::new(&gpu), &q, &kv, &batch, &opts).expect_err("heads");
    assert!(matches!(error, OpError::Value { op: "attention", what: "num_q_heads", .. }), "{error}");
}

#[test]
fn products_of_matrices_that_wrap_are_no_small_buffers() {
    let gpu = gpu();
    let [x, w, y] = [(); 3].map(|()| gpu.alloc(64).expect("a buffer"));
    let part = matmul::Part {
        buffer: &w,
        scales: None,
        format: girih_ops::WeightFormat::F32,
        row0: 0,
        rows: 1 << 31,
    };
    let args = matmul::gemm::Args {
        x: &x,
        parts: &[part],
        epilogue: matmul::Epilogue { bias: None, alpha: 1.0, act: matmul::Act::Identity, residual: None },
        y: &y,
        scratch: None,
    };
    // 4 · 2^31 · 2^31 bytes of x, of y and of a row's worth of rows wrap to 0.
    let shape = matmul::Shape { m: 1 << 31, n: 1 << 31, k: 1 << 31 };
    let error = matmul::gemm::record(&mut Recorder::new(&gpu), args, shape).expect_err("sizes");
    assert!(matches!(error, KernelError::BadBuffer { want: u64::MAX, .. }), "{error}");
}
