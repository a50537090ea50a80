let own_v4 = load_v4(v_head + min(c0 + g * LANES + lane, last - 1u) * p.v_token, d);
