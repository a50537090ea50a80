//! Ternary matrices: encoded on the host, decoded and multiplied on the device.

use girih_kernels::quant::dictionary::TernaryRows;
use girih_kernels::testing::{hash, seeded};
use girih_ops::ternary::{TernaryDictionary, TernaryMatrix, ternary_decode, ternary_linear};
use girih_ops::{Frame, Gpu, Tensor};
use girih_quantize::TernaryMatrix as Encoded;
use girih_tests::goldens::assert_close;
use girih_tests::on_device;

/// Weights of which so many in a thousand round to 0.
fn sparse(len: u32, zeros: u32) -> Vec<f32> {
    let value = |i: u32| {
        let size = if hash(i) % 1000 < zeros { 0.01 } else { 0.8 };
        size * (1.0 + (hash(i + 9) % 50) as f32 / 200.0)
            * if hash(i + 5).is_multiple_of(2) { 1.0 } else { -1.0 }
    };
    (0..len).map(value).collect()
}

/// Rounded, encoded, to bytes and back, uploaded, decoded: the same bits. Products are those of the decoded weights.
#[on_device]
async fn what_the_host_encodes_the_device_decodes(gpu: Gpu) {
    let dictionary = TernaryDictionary::new(&gpu).expect("uploads");
    for (m, n, k, zeros) in [(1u32, 1u32, 1u32, 0u32), (2, 9, 333, 885), (3, 40, 70, 300), (1, 5, 2000, 1000)]
    {
        let encoded = Encoded::round(&sparse(n * k, zeros), [n, k]).expect("rounds");
        let encoded = Encoded::from_bytes(&encoded.to_bytes()).expect("reads");
        let want = encoded.rows().values().expect("decodes");
        let w = TernaryMatrix::upload(&gpu, &dictionary, &encoded.rows()).expect("uploads");
        assert_eq!(w.shape(), [n, k]);
        let x = seeded((m * k) as usize, 3);
        let tensor = Tensor::from_f32(&gpu, &x, &[m, k]).expect("uploads");
        let mut frame = Frame::new(&gpu);
        let values = ternary_decode(&mut frame, &w).expect("records");
        let y = ternary_linear(&mut frame, &tensor, &w).expect("records");
        frame.submit().expect("runs");
        let got = values.to_f32(&gpu).await.expect("reads");
        assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{n} x {k}");
        let row = |x: &[f32], w: &[f32]| -> f64 {
            x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
        };
        let products: Vec<f32> = x
            .chunks_exact(k as usize)
            .flat_map(|x| want.chunks_exact(k as usize).map(|w| row(x, w) as f32).collect::<Vec<_>>())
            .collect();
        let got = y.to_f32(&gpu).await.expect("reads");
        assert_close(&format!("{m} x {n} x {k}"), &got, &products, 1e-5 * f64::from(k).sqrt(), 1e-5);
    }
}

#[on_device]
async fn what_does_not_decode_is_a_typed_error(gpu: Gpu) {
    let dictionary = TernaryDictionary::new(&gpu).expect("uploads");
    // Word 0 is one pair of zeros: two columns of the three.
    let rows = TernaryRows { n: 1, k: 3, starts: &[0, 1], codes: &[0], levels: &[0] };
    let error = TernaryMatrix::upload(&gpu, &dictionary, &rows).expect_err("one pair of two").to_string();
    assert!(error.contains("row 0 have 1 pairs, must have 2"), "{error}");
    let good = TernaryRows { starts: &[0, 2], codes: &[0, 0], ..rows };
    let w = TernaryMatrix::upload(&gpu, &dictionary, &good).expect("uploads");
    let x = Tensor::from_f32(&gpu, &[0.0; 4], &[1, 4]).expect("uploads");
    let error = ternary_linear(&mut Frame::new(&gpu), &x, &w).expect_err("4 columns of 3").to_string();
    assert!(error.contains("x has shape [1, 4]"), "{error}");
}
