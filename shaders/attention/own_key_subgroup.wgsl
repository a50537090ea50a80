//!enable subgroups
let own_k4 = load_k4(k_head + min(c0 + g * LANES + lane, last - 1u) * p.k_token, d);
