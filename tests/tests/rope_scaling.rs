//! Frequencies of every kind of rotary embedding against transformers.

use girih_model::network::rope::RopeParameters;
use girih_tests::goldens;

#[test]
fn frequencies() {
    for case in goldens::op("rope").cases() {
        let name = &case.name;
        let max = case.number("max_position_embeddings").expect("a length") as u32;
        let params = case.json["rope"].as_object().expect("an object");
        let rope = RopeParameters::parse(params, 10000.0, 1.0, max, None).expect(name);
        let rotary_dim = case.number("rotary_dim").expect("a number") as u32;
        let (shape, _) = case.f32("x");
        assert_eq!(rope.rotary_dim(shape[2]), rotary_dim, "{name}");
        let seq_len = case.number("seq_len").map(|len| len as u32);
        let got = rope.frequencies(rotary_dim, seq_len).expect(name);
        let want = case.number("attention_factor").expect("a number");
        assert!((got.attention_factor - want).abs() < 1e-9, "{name}: {} is not {want}", got.attention_factor);
        let (_, inv_freq) = case.f32("inv_freq");
        // torch's pow and ours may round differently: two units in the last place.
        goldens::assert_close(&format!("{name}: inv_freq"), &got.inv_freq, &inv_freq, 0.0, 2.4e-7);
        let (_, cos) = case.f32("cos");
        let (_, sin) = case.f32("sin");
        let half = rotary_dim as usize / 2;
        for (row, position) in case.ints("positions").into_iter().enumerate() {
            let (got_cos, got_sin) = got.cos_sin(position as u32);
            // A frequency that differs in the last place moves the angle by so much.
            let angle = 2.4e-7 * position as f64 * f64::from(inv_freq[0]).max(1.0);
            let abs = (1e-7 + angle) * want;
            let place = row * half..(row + 1) * half;
            goldens::assert_close(
                &format!("{name}: cos at {position}"),
                &got_cos,
                &cos[place.clone()],
                abs,
                1e-6,
            );
            goldens::assert_close(&format!("{name}: sin at {position}"), &got_sin, &sin[place], abs, 1e-6);
        }
        let same = got.inv_freq.iter().zip(&inv_freq).filter(|(a, b)| a == b).count();
        println!("{name}: {same} of {half} frequencies are bit-identical");
    }
}
